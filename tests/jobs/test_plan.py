"""`llm plan`: figures that add up, advice that was planned, and refusals before any of it."""

import json
import shlex

import pytest

from llm.cli.main import main

SMALL = ("model.d_model=64", "model.n_layers=2", "model.n_heads=4", "model.n_kv_heads=2", "model.head_dim=16")
SHORT = ("model.d_ff=128", "model.context_length=64", "hardware=h100", "tokenizer=byte")


@pytest.fixture
def plan(tmp_path, monkeypatch, capsys):
    """Gives a plan's figures and what was printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main(["plan", *SMALL, *SHORT, *words, "out=plan.json"])
        shown = capsys.readouterr()
        assert code == 0, shown.err
        return json.loads((tmp_path / "plan.json").read_text()), shown.out

    return run


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Gives the message of a command that is refused, which writes nothing."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        assert main(["plan", *SMALL, *SHORT, *words]) == 2
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().err

    return run


def test_the_figures_add_up(plan, tmp_path):
    figures, shown = plan("strategy=fsdp", "trainer.devices=16", "hardware.price_per_hour=2", "tokens=1e9")
    memory = figures["memory"]
    assert sum(memory[kind] for kind in memory if kind != "total") == memory["total"]
    assert figures["fits"]
    assert figures["tokens"] >= 1e9 > figures["tokens"] - figures["tokens_per_step"]
    hours = figures["steps"] * figures["step_seconds"]["total"] / 3600
    assert figures["cost"] == pytest.approx(hours * 16 * 2)
    assert figures["flops"] == pytest.approx(figures["tokens"] * figures["flops_per_token"])
    assert figures["links"]["data"] == 400  # two nodes of eight, each with eight network cards
    assert "it fits" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_tokens_a_second_follow_the_stated_efficiency(plan):
    one, half = (
        plan(f"matmul_efficiency={share}", "hardware.memory_gb_per_s=null", "trainer.accelerator=cpu")[0]
        for share in (0.4, 0.2)
    )
    assert (one["matmul_efficiency"], half["matmul_efficiency"]) == (0.4, 0.2)
    assert one["tokens_per_second"] == pytest.approx(2 * half["tokens_per_second"])
    assert one["model_mfu"] == pytest.approx(0.4)


# Each of the ways is planned twice, and many others before them.
@pytest.mark.slow
def test_what_fits_was_planned(plan):
    words = ("trainer.devices=4", "strategy=ddp", "data.batch_size=256", "data.micro_batch_size=64")
    tight = "hardware.memory_gb=0.03"
    figures, shown = plan(*words, tight)
    assert not figures["fits"]
    assert figures["ways"]
    assert "IT DOES NOT FIT" in shown
    for way in figures["ways"]:
        changed = {word.partition("=")[0] for word in way["overrides"]}
        kept = [word for word in words if word.partition("=")[0] not in changed]
        again, _ = plan(*kept, tight, *way["overrides"])
        assert again["fits"]
        assert again["memory"]["total"] == way["memory"] <= figures["room"]


def test_the_fastest_is_no_slower_than_what_was_asked_for(plan):
    words = (
        "trainer.devices=2",
        "data.batch_size=8",
        "data.micro_batch_size=1",
        "activation_checkpointing=1",
        # It waits for nothing, so that what is computed twice tells.
        "hardware.node_gb_per_s=null",
        "hardware.memory_gb_per_s=null",
    )
    figures, shown = plan(*words, "strategy=fsdp", "goal=fastest")
    (way,) = figures["ways"]
    assert way["tokens_per_second"] > figures["tokens_per_second"]
    assert " ".join(way["overrides"]) in shown
    assert shlex.split(" ".join(way["overrides"])) == way["overrides"]


def test_a_search_for_several_devices_needs_no_strategy(plan, refused):
    # It waits for nothing, so that none is faster than a copy on each device, where the search begins.
    words = ("trainer.devices=4", "hardware.node_gb_per_s=null", "hardware.memory_gb_per_s=null")
    assert "use strategy=ddp" in refused(*words, "goal=fastest", "strategy=single")
    figures, shown = plan(*words, "goal=fastest")
    (way,) = figures["ways"]
    assert "strategy=ddp" in way["overrides"]
    assert " ".join(way["overrides"]) in shown
    again, _ = plan(*words, *way["overrides"])
    assert again["memory"]["total"] == way["memory"]


def test_what_gains_nothing_is_not_proposed(plan):
    figures, shown = plan(
        "goal=fastest", "trainer.devices=1", "strategy=single", "hardware.memory_gb_per_s=null"
    )
    (way,) = figures["ways"]
    assert way["overrides"] == []
    assert way["memory"] == figures["memory"]["total"]
    assert "the command as it is" in shown


def test_deepspeed_is_planned_without_being_installed(plan):
    words = ("trainer.devices=4", "hardware.host_gb_per_s=50")
    on_device, shown = plan(*words, "strategy=deepspeed_zero2")
    assert on_device["memory"]["host"] == 0
    assert "state hardware.price_per_hour=" in shown
    away, shown = plan(*words, "strategy=deepspeed_zero2", "trainer.strategy.offload=true")
    assert away["choice"]["trainer.strategy.offload"] == "true"
    assert away["memory"]["total"] < on_device["memory"]["total"]
    assert "the host's" in shown


def test_a_task_is_planned_before_its_text_is_read(plan):
    masked, _ = plan("model.architecture=encoder", "task=masked_lm", "trainer.devices=1")
    causal, _ = plan("trainer.devices=1")
    # Scores are wanted of 15% of the tokens.
    assert masked["memory"]["logits"] < causal["memory"]["logits"]
    assert masked["flops_per_token"] < causal["flops_per_token"]


def test_a_batch_that_nobody_asked_for_suits_the_devices(plan):
    figures, _ = plan("strategy=fsdp", "trainer.devices=48")
    assert figures["batch_size"] == 48


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("hardware.memory_gb=-1",), "hardware.memory_gb=-1"),
        (("matmul_efficiency=2",), "matmul_efficiency=2"),
        (("strategy=single", "trainer.devices=8"), "strategy=single trains on one device"),
        (("strategy=fsdp", "trainer.devices=3", "data.batch_size=32"), "cannot be shared evenly by 3"),
        (
            ("strategy=fsdp_tp", "trainer.devices=8", "trainer.strategy.tensor_parallel_size=8"),
            "doesn't divide model.n_heads=4",
        ),
        (("strategy=fsdp_tp", "trainer.devices=3"), "does not divide the 3 processes"),
        (("optimizer=muon", "strategy=fsdp_tp", "trainer.devices=2"), "muon"),
    ],
)
def test_what_cant_be_is_refused(refused, words, says):
    assert says in refused(*words)


def test_unknown_hardware_is_refused(capsys):
    assert main(["plan", "hardware=h10"]) == 2
    assert "Did you mean hardware=h100?" in capsys.readouterr().err


def test_the_whole_command_of_a_cluster(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["model=gpt3_175b", "strategy=fsdp", "trainer.devices=1024", "hardware=h100"]
    keep = ["activation_checkpointing=1", "tokenizer.vocab_size=50257", "out=plan.json"]
    assert main(["plan", *words, *keep]) == 0
    figures = json.loads((tmp_path / "plan.json").read_text())
    assert figures["fits"]
    assert figures["parameters"] == pytest.approx(174.6e9, rel=1e-3)
    # Four bytes of weights and eight of AdamW's state, shared by all.
    assert figures["memory"]["weights"] == pytest.approx(4 * 174.6e9 / 1024, rel=0.01)
    assert figures["memory"]["optimizer"] == pytest.approx(8 * 174.6e9 / 1024, rel=0.01)
