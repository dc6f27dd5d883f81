"""`llm export format=gguf` and `format=onnx`, of runs that the commands trained, and training on from a .gguf file."""

import json
import shlex
import subprocess
import sys

import pytest
import torch

from llm import build
from llm.cli.main import main
from llm.generation import complete
from llm.tokenizer import load_tokenizer
from llm.train.run import Run

OWN_HEADS = ("model.n_kv_heads", "model.head_dim", "tokenizer")


@pytest.fixture
def train(tiny, tmp_path, capsys):
    """Train a tiny run with a trained tokenizer; gives its folder."""
    kept = [word for word in tiny if not word.startswith(OWN_HEADS)]

    def trained(model, *more, steps=4):
        words = [*kept, f"model={model}", "tokenizer.vocab_size=500", "optimizer.lr=1e-2"]
        assert main(["train", *words, f"name={model}", f"trainer.max_steps={steps}", *more]) == 0
        capsys.readouterr()
        return tmp_path / "runs" / model

    return trained


def opened(run):
    net, _ = build.trained_model(Run.open(run), None)
    return net, load_tokenizer(run / "tokenizer")


def next_lines(capsys):
    """The commands that an export printed."""
    return [
        line.strip() for line in capsys.readouterr().out.partition("Next:")[2].splitlines() if line.strip()
    ]


def test_the_file_of_a_run_gives_its_greedy_text_in_transformers(train, tmp_path, capsys):
    pytest.importorskip("gguf", reason="gguf is not installed: pip install -e '.[export]'")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers reads GGUF with accelerate")
    run, out = train("llama_nano", "model.n_kv_heads=1", steps=30), tmp_path / "spam.gguf"
    assert main(["export", f"run={run}", f"out={out}", "format=gguf"]) == 0
    assert out.is_file()
    assert f"llama-server -m {out}" in next_lines(capsys)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=out.name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=out.name)
    net, ours = opened(run)
    for prompt in (" def spam(", " import ", "\u0020é\t"):
        inputs = tokenizer(prompt, return_tensors="pt")
        written = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0, inputs.input_ids.shape[1] :]
        assert ours.decode(written.tolist()) == complete(net, ours, prompt, max_new_tokens=20)[0]


@pytest.mark.parametrize("name", ["nano", "gpt_nano"])
def test_a_file_is_trained_on(name, train, tiny, tmp_path, capsys):
    pytest.importorskip("gguf", reason="gguf is not installed: pip install -e '.[export]'")
    run, out = train(name), tmp_path / "out"
    assert main(["export", f"run={run}", f"out={out}", "format=gguf"]) == 0
    kept = [word for word in tiny if not word.startswith(("model", "tokenizer"))]
    start = [f"init_from={out}/model.gguf", "name=b", "trainer.max_steps=1", "optimizer.lr=1e-12"]
    assert main(["train", *kept, *start]) == 0
    before, after = (
        json.loads((folder / "evaluation.json").read_text())[0]["metrics"]["loss"]
        for folder in (run, tmp_path / "runs/b")
    )
    assert after == pytest.approx(before, rel=2e-6)
    # What was read from a file is written to one again.
    again = tmp_path / "again.gguf"
    assert main(["export", f"run={tmp_path}/runs/b", f"out={again}", "format=gguf"]) == 0


@pytest.mark.parametrize("start", ["missing.gguf", "empty.gguf"])
def test_a_file_that_is_none_is_said(tiny, tmp_path, capsys, start):
    pytest.importorskip("gguf", reason="gguf is not installed: pip install -e '.[export]'")
    (tmp_path / "empty.gguf").touch()
    kept = [word for word in tiny if not word.startswith(("model.", "tokenizer"))]
    assert main(["train", *kept, f"init_from={tmp_path}/{start}", "name=a"]) == 1
    assert "is no GGUF file" in capsys.readouterr().err


def test_what_gguf_has_no_place_for_is_said_before_anything_is_written(train, tmp_path, capsys):
    pytest.importorskip("gguf", reason="gguf is not installed: pip install -e '.[export]'")
    run = train("nano", "model.logit_soft_cap=30")
    assert main(["export", f"run={run}", f"out={tmp_path}/out", "format=gguf"]) == 2
    assert "qwen3 has no place for logit_soft_cap=30.0 (it has None)" in capsys.readouterr().err
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task"), [("gpt_nano", "causal_lm"), ("bert_nano", "masked_lm"), ("t5_nano", "span_corruption")]
)
def test_a_run_as_onnx_gives_the_same_logits(name, task, train, tmp_path, capsys):
    onnxruntime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is not installed: pip install -e '.[export]'"
    )
    run, out = train(name, f"task={task}"), tmp_path / "out"
    assert main(["export", f"run={run}", f"out={out}", "format=onnx"]) == 0
    (line,) = next_lines(capsys)
    shown = subprocess.run(
        [sys.executable, *shlex.split(line)[1:]], capture_output=True, text=True, check=True
    )
    net, tokenizer = opened(run)
    length = 1 if task == "span_corruption" else len(tokenizer.encode("def main():"))
    assert shown.stdout.strip() == f"(1, {length}, {tokenizer.vocab_size})"
    ids = torch.tensor([tokenizer.encode("def spam(eggs): return")])
    session = onnxruntime.InferenceSession(out / "model.onnx")
    inputs = {node.name: torch.ones_like(ids) for node in session.get_inputs()}
    inputs |= {name: ids for name in inputs if name.endswith("input_ids")}
    if "token_type_ids" in inputs:
        inputs["token_type_ids"] = torch.zeros_like(ids)
    (logits,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        expected = net(ids, source_bs=ids) if task == "span_corruption" else net(ids)
    assert (torch.from_numpy(logits) - expected).abs().max().item() < 1e-4
