"""What a command line composes to: defaults, overlays, names, types, and texts exactly as they were typed."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm.cli.compose import compose
from llm.errors import ConfigError

NASTY = [
    "a b",
    " leading and trailing ",
    "a,b",
    "a=b=c",
    "a:b",
    "C:\\new\\table",
    "(parens)",
    "(a, b) = {c: d}",
    "~tilde",
    "~",
    "${seed}",
    "${oc.env:HOME}",
    "\\${x}",
    "$HOME",
    "'single'",
    '"double"',
    "it's",
    "''",
    "ünï – 日本語 🙂",
    "null",
    "true",
    "1",
    "1e-3",
    "0x10",
    "???",
    "- dash",
    "--flag",
    "# not a comment",
    "a # b",
    "!!python/object:os.system",
    "&anchor",
    "*.txt",
    "**/*.txt",
    "{a}",
    "{",
    "]",
    "a]",
    "x[0]",
    "%s %(x)s {0}",
    "a\tb",
    "two\nlines",
    "@",
    "`ls`",
    "a;b|c&d",
    "<|endoftext|>",
    "...",
    "+",
    "=",
    "==x",
    "a\\",
    "\\",
]


def config(verb: str, *argv: str) -> dict[str, Any]:
    return compose(verb, argv).config


def test_the_defaults() -> None:
    composed = compose("train", [])
    assert composed.config["name"] == "nano-stdlib-causal_lm"
    wanted = {
        "model": "nano",
        "data": "stdlib",
        "tokenizer": "bpe",
        "task": "causal_lm",
        "optimizer": "adamw",
        "schedule": "cosine",
        "trainer": "default",
        "strategy": "single",
        "logger": "csv",
        "callbacks": "default",
        "adapter": "none",
        "experiment": None,
        "debug": None,
    }
    assert composed.choices == wanted


@pytest.mark.parametrize("verb", ["train", "evaluate", "generate", "prepare"])
def test_a_config_is_plain(verb: str) -> None:
    given = config(verb, *(["run=r"] if verb in ("evaluate", "generate") else []))
    assert json.loads(json.dumps(given)) == given


def test_every_key_is_there() -> None:
    given = config("train", "model.rope_scaling.factor=4")
    assert given["model"]["rope_scaling"] == {
        "factor": 4,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_context_length": 8192,
    }
    assert {"max_steps", "devices", "strategy", "precision"} <= set(given["trainer"])


KEYS = ("runs_dir", "shards_dir", "init_from", "resume", "name", "samples.prompts", "data.paths", "data.text")


@pytest.mark.parametrize("number", range(0, len(NASTY), 2), ids=lambda number: ascii(NASTY[number]))
def test_texts_are_taken_as_typed(number: int) -> None:
    texts = {key: NASTY[(number + i) % len(NASTY)] for i, key in enumerate(KEYS)}
    given = config("train", "data=jsonl", *(f"{key}={text}" for key, text in texts.items()))
    flat = given | {f"{node}.{key}": v for node in ("data", "samples") for key, v in given[node].items()}
    assert flat["samples.prompts"] == [texts.pop("samples.prompts")]
    assert {key: flat[key] for key in texts} == texts


@pytest.mark.parametrize("text", [*NASTY, "", "[", "[a, b]", "[INST] hello [/INST]"])
def test_any_text_is_a_prompt(text: str) -> None:
    assert config("generate", "run=r", f"prompt={text}")["prompt"] == text


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("[]", []),
        ("[ ]", []),
        ("[a]", ["a"]),
        ("[a,b]", ["a", "b"]),
        ("[a b, c d ]", ["a b", "c d"]),
        ("['a, b', c]", ["a, b", "c"]),
        ('["a, b","c"]', ["a, b", "c"]),
        ("[it's, they're]", ["it's", "they're"]),
        ("[my_folder/**/*.txt]", ["my_folder/**/*.txt"]),
        ("[x/[ab]*.txt, y]", ["x/[ab]*.txt", "y"]),
        ("['[ab]*.txt']", ["[ab]*.txt"]),
        ("[${seed}, ~x, a=b:c, ü]", ["${seed}", "~x", "a=b:c", "ü"]),
        ("[' a ']", [" a "]),
        ("[a,]", ["a"]),
    ],
)
def test_a_leading_bracket_means_a_list(text: str, items: list[str]) -> None:
    given = config("evaluate", f"run={text}", "data=text", f"data.paths={text}")
    assert given["run"] == items
    assert given["data"]["paths"] == items


def test_a_list_must_be_closed() -> None:
    with pytest.raises(ConfigError, match="isn't closed"):
        config("train", "data=text", "data.paths=[ab]*.txt")


def test_interpolation_in_files_sees_the_text(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nshards_dir: ${runs_dir}/shards\ntrainer:\n  max_steps: ${seed}\n"
    )
    given = config("train", "--config-dir", str(tmp_path), "experiment=mine", "runs_dir=a ${b}, c", "seed=7")
    assert given["shards_dir"] == "a ${b}, c/shards"
    assert given["trainer"]["max_steps"] == 7


def test_values_have_the_types_of_their_keys() -> None:
    given = config(
        "train",
        "optimizer.lr=1e-3",
        "optimizer.betas=[0.9,0.99]",
        "optimizer.weight_decay=0",
        "compile=true",
        "trainer.devices=[0,1]",
        "trainer.precision=32",
        "trainer.limit_val_batches=0.5",
        "model.n_kv_heads=null",
        "schedule.warmup_steps=",
        "optimizer.eps=1e-9",
    )
    assert given["optimizer"]["lr"] == 0.001
    assert given["optimizer"]["betas"] == [0.9, 0.99]
    assert given["optimizer"]["weight_decay"] == 0
    assert given["compile"] is True
    assert given["trainer"]["devices"] == [0, 1]
    assert given["trainer"]["precision"] == "32"
    assert given["trainer"]["limit_val_batches"] == 0.5
    assert given["model"]["n_kv_heads"] is None
    assert given["schedule"]["warmup_steps"] is None


@pytest.mark.parametrize("key", ["top_k", "top_p", "min_p", "repetition_penalty", "seed", "checkpoint"])
def test_nothing_means_none(key: str) -> None:
    assert config("generate", "run=r", f"{key}=")[key] is None


def test_what_overrides_what(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /model: gpt_nano\n  - override /optimizer: muon\n  - _self_\n"
        "name: mine\ntrainer:\n  max_steps: 111\n  log_every_n_steps: 3\nmodel:\n  dropout: 0.25\n"
        "checkpoint:\n  every_n_steps: 7\n"
    )
    own = ["--config-dir", str(tmp_path), "experiment=mine"]
    alone = compose("train", own)
    assert alone.choices["model"] == "gpt_nano"
    assert alone.choices["optimizer"] == "muon"
    assert alone.config["model"]["dropout"] == 0.25
    assert alone.config["trainer"]["max_steps"] == 111
    assert alone.config["checkpoint"]["every_n_steps"] == 7
    assert alone.config["name"] == "mine"
    debugged = compose("train", [*own, "debug=fast"]).config
    assert debugged["trainer"]["max_steps"] == 2
    assert debugged["model"]["dropout"] == 0.25
    told = compose("train", [*own, "debug=fast", "trainer.max_steps=5", "model=nano", "model.dropout=0"])
    assert told.config["trainer"]["max_steps"] == 5
    assert told.choices["model"] == "nano"
    assert told.config["model"]["dropout"] == 0


def test_a_strategy_is_an_overlay_on_one_key() -> None:
    single, ddp = config("train"), config("train", "strategy=ddp")
    assert single["trainer"].pop("strategy") == "auto"
    assert ddp["trainer"].pop("strategy")["_target_"] == "lightning.pytorch.strategies.DDPStrategy"
    assert single == ddp


def test_a_strategys_arguments_can_be_set() -> None:
    strategy = config("train", "strategy=ddp", "trainer.strategy.static_graph=true")["trainer"]["strategy"]
    assert strategy["static_graph"] is True
    with pytest.raises(ConfigError, match=r"model_averaging_period=x: expected int or null"):
        config("train", "strategy=ddp", "trainer.strategy.model_averaging_period=x")


@pytest.mark.parametrize("turned", [False, True])
def test_the_keys_are_those_of_the_class_that_is_named(turned: bool) -> None:
    words = ["optimizer._target_=llm.train.optimizers.Muon", "optimizer.adam_lr=0.5"]
    assert config("train", *(reversed(words) if turned else words))["optimizer"]["adam_lr"] == 0.5
    with pytest.raises(ConfigError, match="optimizer=muon"):
        config("train", words[1], "optimizer._target_=torch.optim.SGD")


@pytest.mark.parametrize("word", ["logger=null", "logger=", "logger=[]"])
def test_no_logger_beside_metrics_csv(word: str) -> None:
    composed = compose("train", [word, "callbacks=null"])
    assert composed.config["logger"] == composed.config["callbacks"] == {}


@pytest.mark.parametrize("word", ["experiment=", "experiment=null", "debug=null"])
def test_an_overlay_can_be_left_out_in_words(word: str) -> None:
    assert compose("train", [word]).config == config("train")


def test_steps_are_ordered_set_added_and_left_out() -> None:
    words = [
        "data=common_crawl",
        "data.paths=[a]",
        "data.steps.language.languages=[de, fr]",
        "data.steps.c4=null",
    ]
    added = ["data.steps.lower._target_=llm.data.steps.LowerCase"]
    steps = compose("prepare", [*words, *added]).config["data"]["steps"]
    assert list(steps)[:3] == ["fix_text", "language", "gopher_repetition"]
    assert list(steps)[-1] == "lower"
    assert steps["language"]["languages"] == ["de", "fr"]
    assert steps["c4"] is None
    with pytest.raises(ConfigError, match=r"data\.steps\.language\.languages\?"):
        compose("prepare", [*words, "data.steps.langage.languages=[de]"])
    with pytest.raises(ConfigError, match="may not be named"):
        compose("prepare", [*words, "data.steps.lower._target_=os.system"])


def test_several_loggers_at_once() -> None:
    composed = compose("train", ["logger=[csv,tensorboard]"])
    assert set(composed.config["logger"]) == {"csv", "tensorboard"}


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["model=gpt_nano"], "gpt_nano-stdlib-causal_lm"),
        (["model=gpt_nano", "data=text", "data.paths=x"], "gpt_nano-text-causal_lm"),
        (["debug=fast"], "nano-stdlib-causal_lm-fast"),
        (["init_from=runs/my bert/"], "my bert-stdlib-causal_lm"),
        (["init_from=org/model"], "model-stdlib-causal_lm"),
        (["name="], "nano-stdlib-causal_lm"),
        (["name=a/b"], "a/b"),
        (["experiment=demo"], "demo"),
        (["experiment=demo", "name=other"], "other"),
    ],
)
def test_the_default_name_is_made_of_the_choices(argv: list[str], name: str) -> None:
    assert config("train", *argv)["name"] == name


@pytest.mark.parametrize("name", ["/abs", "..", "a/../b", ".", "./", "x" * 256, "é" * 128])
def test_a_name_is_a_folder_inside_runs_dir(name: str) -> None:
    with pytest.raises(ConfigError, match="name="):
        config("train", f"name={name}")


def test_a_plus_before_a_known_key_is_harmless() -> None:
    given = compose("train", ["+experiment=demo", "++trainer.max_steps=3"])
    assert given.choices["experiment"] == "demo"
    assert given.config["trainer"]["max_steps"] == 3


def test_ones_own_folder_joins(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("defaults:\n  - nano\n\nn_layers: 3\n")
    for flag in (["--config-dir", str(tmp_path)], [f"--config-dir={tmp_path}"], ["-cd", str(tmp_path)]):
        given = compose("train", [*flag, "model=mine"])
        assert given.config["model"]["n_layers"] == 3
        assert given.config["model"]["d_model"] == 192
        assert given.config["name"] == "mine-stdlib-causal_lm"


def test_evaluation_needs_no_data() -> None:
    assert config("evaluate", "run=runs/x")["data"] is None
    other = config("evaluate", "run=[a,b]", "data=text", "data.paths=[u, v]", "eval=code")
    assert other["run"] == ["a", "b"]
    assert other["data"]["paths"] == ["u", "v"]
    assert other["eval"] == ["code"]


def test_composing_sets_nothing_global() -> None:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    compose("train", [])
    assert not GlobalHydra.instance().is_initialized()
    assert not HydraConfig.initialized()


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_earlier_spellings_of_a_key_mean_the_same(verb: str) -> None:
    words = ["run=x"] if verb == "evaluate" else []
    old = ["eval.tasks=[a]", "eval.include_path=b", "eval.num_fewshot=1", "eval.limit=2"]
    found = compose(verb, [*words, *old])
    assert found == compose(verb, [*words, *(f"lm_{word}" for word in old)])
    assert found.config["lm_eval"] == {"tasks": ["a"], "include_path": "b", "num_fewshot": 1, "limit": 2}


def test_both_spellings_of_a_key_are_one_key_given_twice() -> None:
    with pytest.raises(ConfigError, match=r"lm_eval\.limit: this is given twice, as 1 and as 2"):
        compose("train", ["eval.limit=1", "lm_eval.limit=2"])
