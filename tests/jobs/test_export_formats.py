"""`llm export format=gguf` and `format=onnx`, of runs that the commands trained, and training on from a .gguf file."""

import importlib.util
import json
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch

from llm import build
from llm.cli.main import main
from llm.data.mixture import open_text
from llm.generation import complete, generate
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
def test_a_run_as_onnx_gives_the_same_logits(train, tmp_path, capsys):
    onnxruntime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is not installed: pip install -e '.[export]'"
    )
    run, out = train("t5_nano", "task=span_corruption"), tmp_path / "out"
    assert main(["export", f"run={run}", f"out={out}", "format=onnx"]) == 0
    (line,) = next_lines(capsys)
    shown = subprocess.run(
        [sys.executable, *shlex.split(line)[1:]], capture_output=True, text=True, check=True
    )
    net, tokenizer = opened(run)
    assert shown.stdout.strip() == f"(1, 1, {tokenizer.vocab_size})"
    ids = torch.tensor([tokenizer.encode("def spam(eggs): return")])
    with torch.no_grad():
        expected = net(ids, source_bs=ids)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert (by_onnx(session, ids) - expected).abs().max().item() < 1e-4


def by_onnx(session, ids):
    """The logits of a row of tokens; of an encoder-decoder, where they are the target too."""
    inputs = {node.name: torch.ones_like(ids) for node in session.get_inputs()}
    inputs |= {name: ids for name in inputs if name.endswith("input_ids")}
    if "token_type_ids" in inputs:
        inputs["token_type_ids"] = torch.zeros_like(ids)
    (logits,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return torch.from_numpy(logits)


LEARNED = [
    "trainer.max_steps=200",
    "data.batch_size=4",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
]
QUIET = ["trainer.val_check_interval=null", "samples.every_n_steps=null", "compile=false", "eval=[]"]


# Of the largest logit; ONNX Runtime has kernels of its own.
TOLERANCES = {"transformers": 2e-6, "ONNX Runtime": 1e-5}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt_nano", "llama_nano", "bert_nano"])
def test_a_preset_that_learned_for_minutes_says_the_same_elsewhere(name, tmp_path, tmp_path_factory):
    """Shown by `-rP`: the largest difference of logits over the largest logit, and texts of 50 tokens that are the same."""
    transformers, onnxruntime = pytest.importorskip("transformers"), pytest.importorskip("onnxruntime")
    run, task = tmp_path / "runs" / name, "masked_lm" if name == "bert_nano" else "causal_lm"
    shards = tmp_path_factory.getbasetemp() / "shards"  # the corpus is the same
    folders = [f"runs_dir={tmp_path}/runs", f"shards_dir={shards}", f"name={name}"]
    assert main(["train", f"model={name}", f"task={task}", *LEARNED, *QUIET, *folders]) == 0
    for kind in ("hf", "onnx"):
        assert main(["export", f"run={run}", f"format={kind}", f"out={tmp_path}/{kind}"]) == 0
    auto = transformers.AutoModelForMaskedLM if name == "bert_nano" else transformers.AutoModelForCausalLM
    theirs = auto.from_pretrained(tmp_path / "hf")
    session = onnxruntime.InferenceSession(tmp_path / "onnx/model.onnx")
    net, _ = opened(run)
    held_out = open_text(Run.open(run).begun["data"]).validation
    rows_bt = torch.from_numpy(held_out.read(np.arange(20) * 1000, 256))
    with torch.no_grad():
        ours_btv = net(rows_bt)
        found = {"transformers": theirs(rows_bt).logits, "ONNX Runtime": by_onnx(session, rows_bt)}
    for reader, logits_btv in found.items():
        off = ((logits_btv - ours_btv).abs().max() / ours_btv.abs().max()).item()
        print(f"{name}, {reader}: {off:.1e} of {ours_btv.abs().max():.1f}")
        assert off <= TOLERANCES[reader]
    if name == "bert_nano":
        return
    prompts_bt = rows_bt[:, :16]
    ours_bt = torch.stack(list(generate(net, prompts_bt, max_new_tokens=50)), dim=1)
    how = {"max_new_tokens": 50, "do_sample": False, "eos_token_id": None}
    texts = {"transformers": theirs.generate(prompts_bt, **how)[:, 16:]}
    read_bt = prompts_bt
    for _ in range(50):
        read_bt = torch.cat([read_bt, by_onnx(session, read_bt)[:, -1:].argmax(-1)], dim=1)
    texts["ONNX Runtime"] = read_bt[:, 16:]
    if name == "llama_nano" and importlib.util.find_spec("llama_cpp") is not None:
        texts["llama.cpp"] = by_llama_cpp(run, tmp_path / "model.gguf", prompts_bt, 50)
    for reader, tokens_bt in texts.items():
        print(f"{name}, {reader}: {int((tokens_bt == ours_bt).all(1).sum())} of {len(ours_bt)} texts")
        assert torch.equal(tokens_bt, ours_bt)


def by_llama_cpp(run, path, prompts_bt, count):
    """What llama.cpp writes, greedily, with a cache that rounds no more than ours."""
    import llama_cpp

    assert main(["export", f"run={run}", "format=gguf", f"out={path}"]) == 0
    float32 = llama_cpp.GGML_TYPE_F32
    model = llama_cpp.Llama(str(path), n_ctx=256, type_k=float32, type_v=float32, verbose=False)
    rows = []
    for prompt in prompts_bt.tolist():
        steps = model.generate(prompt, temp=0.0, repeat_penalty=1.0)
        rows.append([next(steps) for _ in range(count)])
    return torch.tensor(rows)
