"""`llm export format=hf`: trained by the commands, loaded by transformers' Auto classes, and the same in all that they give."""

import errno
import json
import logging
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

from llm import build
from llm.cli.main import main
from llm.config.schema import ExportConfig
from llm.hub import from_huggingface
from llm.hub.formats import FORMATS
from llm.tokenizer import load_tokenizer
from llm.train.run import Run
from tests.commands import changed, on_labels, without

ROOT = Path(__file__).resolve().parents[2]
# The task, how transformers loads what it gives, and a prompt.
KINDS = {
    "gpt_nano": ("causal_lm", "AutoModelForCausalLM", "def main():"),
    "llama_nano": ("causal_lm", "AutoModelForCausalLM", "import <|endoftext|>"),
    "nano": ("causal_lm", "AutoModelForCausalLM", ""),
    "bert_nano": ("masked_lm", "AutoModelForMaskedLM", "for <mask> in a<mask>"),
    "modern_bert_nano": ("masked_lm", "AutoModelForMaskedLM", "for <mask> in a"),
    "transformer_nano": ("seq2seq", "AutoModelForSeq2SeqLM", ""),
    "t5_nano": ("span_corruption", "AutoModelForSeq2SeqLM", "def <mask>(self"),
}
OWN_HEADS = ("model.n_kv_heads", "model.head_dim", "tokenizer")


def words(tiny, name, *more):
    """The overrides of a tiny run of the shape `name`, with a trained tokenizer."""
    kept = [word for word in tiny if not word.startswith(OWN_HEADS)]
    heads = ["model.n_kv_heads=1", "model.head_dim=16"] if name in ("nano", "llama_nano") else []
    return [*kept, *heads, f"model={name}", f"task={KINDS[name][0]}", "tokenizer.vocab_size=500", *more]


@pytest.fixture
def train(tiny, tmp_path, capsys):
    """Train a tiny run; gives its folder."""

    def trained(name="nano", *more):
        assert (
            main(
                [
                    "train",
                    *words(tiny, name, *more),
                    f"name={name}",
                    "trainer.max_steps=4",
                    "optimizer.lr=1e-2",
                ]
            )
            == 0
        )
        capsys.readouterr()
        return tmp_path / "runs" / name

    return trained


def export(run, out, *more, code=0):
    assert main(["export", f"run={run}", f"out={out}", *more]) == code


def beside(out):
    """What else lies in the folder where `out` is to be."""
    return sorted(
        path.name for path in out.parent.iterdir() if path.name.startswith((out.name, f".{out.name}"))
    )


def difference(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"transformer_nano"}))
def test_transformers_loads_and_computes_the_same(name, train, tmp_path, capsys, caplog):
    _, auto, prompt = KINDS[name]
    run, out = train(name), tmp_path / "out"
    export(run, out)
    assert f"from transformers import {auto}" in capsys.readouterr().out
    logging.getLogger("transformers").propagate = True
    caplog.clear()  # of what training logged
    with caplog.at_level(logging.WARNING):
        model, info = getattr(transformers, auto).from_pretrained(out, output_loading_info=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert caplog.messages == []
    assert {key: list(value) for key, value in info.items() if value} == {}
    net, _ = build.trained_model(Run.open(run), None)
    mine = load_tokenizer(run / "tokenizer")
    text = "def spam(eggs):\n    return eggs"
    ids = tokenizer(text, return_tensors="pt", split_special_tokens=True)["input_ids"]
    assert ids[0].tolist() == mine.encode(text)
    with torch.no_grad():
        if auto.endswith("Seq2SeqLM"):
            ours, theirs = net(ids, source_bs=ids), model(input_ids=ids, decoder_input_ids=ids).logits
        else:
            ours, theirs = net(ids), model(ids).logits
    assert difference(ours, theirs) <= 2e-6
    assert main(["generate", f"run={run}", f"prompt={prompt}", "temperature=0", "max_new_tokens=12"]) == 0
    assert capsys.readouterr().out == greedy(model, tokenizer, prompt) + "\n"


def greedy(model, tokenizer, prompt):
    """What a user of transformers has to write to get the text of `llm generate temperature=0`."""
    if not model.config.is_encoder_decoder and not model.can_generate():
        text = tokenizer.eos_token + prompt.replace("<mask>", tokenizer.mask_token)
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        filled = torch.where(ids == tokenizer.mask_token_id, model(ids).logits.argmax(-1), ids)
        return tokenizer.decode(filled[0, 1:], skip_special_tokens=True)
    if model.config.is_encoder_decoder:
        text = tokenizer.eos_token + prompt.replace("<mask>", "<extra_id_0>")
        ids = tokenizer(text, return_tensors="pt")
        written = tokenizer.decode(model.generate(**ids, max_new_tokens=12, do_sample=False)[0])
        span = re.search(r"<extra_id_0>(.*?)(<|$)", written, re.DOTALL)
        return prompt.replace("<mask>", span[1] if span else "")
    ids = tokenizer(prompt or tokenizer.eos_token, return_tensors="pt", split_special_tokens=bool(prompt))
    written = model.generate(**ids, max_new_tokens=12, do_sample=False)[0]
    return tokenizer.decode(written, skip_special_tokens=True)


def test_a_translation_model_writes_the_same(tiny, tmp_path, capsys):
    """The Transformer of 2017 as Marian, on pairs: our text of a source is theirs."""
    pairs = [{"source": f"number {n} and {n * 7}", "target": f"{n * 7}, {n}."} for n in range(400)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    kept = without(words(tiny, "transformer_nano"), "tokenizer")
    told = ["data=pairs", f"data.paths={tmp_path}/pairs.jsonl", "tokenizer=byte"]
    run, out = tmp_path / "runs/pairs", tmp_path / "out"
    recipe = ["name=pairs", "trainer.max_steps=30", "optimizer.lr=1e-2"]
    assert main(["train", *changed(kept, *told), *recipe]) == 0
    export(run, out)
    capsys.readouterr()
    model, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(out, output_loading_info=True)
    assert {key: list(value) for key, value in info.items() if value} == {}
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    for source in ("number 3 and 21", "number 12 and 84"):
        ids = tokenizer(source + tokenizer.eos_token, return_tensors="pt")
        written = model.generate(**ids, max_new_tokens=10, do_sample=False)[0]
        asked = [f"prompt={source}", "temperature=0", "max_new_tokens=10"]
        assert main(["generate", f"run={run}", *asked]) == 0
        assert capsys.readouterr().out == tokenizer.decode(written, skip_special_tokens=True) + "\n"


def test_a_classifier_keeps_its_labels(tiny, tmp_path, capsys, monkeypatch):
    labelled = without(on_labels(tiny, tmp_path), *OWN_HEADS[:2])
    recipe = ["task=classification", "trainer.max_steps=10", "optimizer.lr=1e-2"]
    assert main(["train", *labelled, *recipe, "name=c", "model=bert_nano"]) == 0
    export(tmp_path / "runs/c", tmp_path / "c")
    model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "c", output_loading_info=True
    )
    assert {key: list(value) for key, value in info.items() if value} == {}
    assert model.config.id2label == {0: "0", 1: "1"}
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", (tmp_path / "c/README.md").read_text(), re.DOTALL)[1]
    capsys.readouterr()
    names = {}
    exec(code.replace('"a text"', '"so good 7"'), names)
    capsys.readouterr()
    scores = names["model"](**names["tokenizer"](names["text"], return_tensors="pt")).logits.softmax(-1)[0]
    assert main(["generate", f"run={tmp_path}/runs/c", "prompt=so good 7"]) == 0
    told = dict(reversed(line.split()) for line in capsys.readouterr().out.splitlines())
    assert told == {label: f"{scores[number]:.3f}" for number, label in model.config.id2label.items()}
    model_config, state = from_huggingface(tmp_path / "c")
    net, _ = build.trained_model(Run.open(tmp_path / "runs/c"), None)
    assert model_config.labels == net.config.labels
    assert all(torch.equal(state[key], tensor) for key, tensor in net.state_dict().items())
    # A decoder's head for labels has a bias, and theirs has none.
    assert main(["train", *labelled, *recipe, "name=d", "model=gpt_nano"]) == 0
    export(tmp_path / "runs/d", tmp_path / "d", code=2)
    assert "gpt2 cannot express labels=('0', '1') (it has ())" in capsys.readouterr().err


def test_the_card_tells_what_the_run_did_and_its_code_runs(train, tmp_path, capsys, monkeypatch):
    run = train("nano")
    export(run, tmp_path / "nano")
    lines = capsys.readouterr().out
    assert "vllm serve" in lines
    assert "format=gguf" in lines
    card = (tmp_path / "nano/README.md").read_text()
    _, header, body = card.split("---\n", 2)
    (entry,) = json.loads((run / "evaluation.json").read_text())
    index = yaml.safe_load(header)["model-index"][0]["results"][0]
    assert {metric["type"]: metric["value"] for metric in index["metrics"]} == {
        name: value for name, value in entry["metrics"].items() if name not in ("tokens", "bytes")
    }
    assert yaml.safe_load(header)["pipeline_tag"] == "text-generation"
    tokens = json.loads((run / "results.json").read_text())[-1]["metrics"]["tokens"]
    assert f"| tokens seen | {tokens:,} |" in body
    assert "| steps | 4 |" in body
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", body, re.DOTALL)[1], {})
    assert capsys.readouterr().out.startswith("def main():")
    assert json.loads((tmp_path / "nano/generation_config.json").read_text()) == {
        "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1,
    }  # fmt: skip


def test_a_card_holds_whatever_names_and_settings_there_are(train, tmp_path):
    odd = "a`|b\n---\n```\n# <b>"
    run = train("nano")
    for file in ("config.yaml", "evaluation.json"):
        (run / file).write_text(
            (run / file)
            .read_text()
            .replace("causal_lm" if file == "config.yaml" else "text", json.dumps(odd)[1:-1])
        )
    export(run, tmp_path / "out")
    _, header, body = (tmp_path / "out/README.md").read_text().split("---\n", 2)
    assert isinstance(yaml.safe_load(header), dict)
    assert "# <b>" not in re.sub(r"^(`{3,})\w*\n.*?^\1$", "", body, flags=re.DOTALL | re.MULTILINE)


def test_weights_above_a_size_are_sharded(train, tmp_path):
    run, out = train("nano"), tmp_path / "out"
    export(run, out, "shard_bytes=20000")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 1
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert all((out / shard).is_file() for shard in shards)
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    net, _ = build.trained_model(Run.open(run), None)
    ids = torch.arange(20)[None]
    assert difference(net(ids), model(ids).logits) <= 2e-6


def test_the_dtype_is_that_asked_for(train, tmp_path):
    export(train("nano"), tmp_path / "out", "dtype=bfloat16")
    state = load_file(tmp_path / "out/model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype is torch.bfloat16


def test_what_is_there_already_is_left_alone(train, tmp_path, capsys):
    run, out = train("nano"), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    export(run, out, code=2)
    assert f"out={out}: something is there already" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").unlink()
    export(run, out)
    assert (out / "config.json").is_file()
    assert beside(out) == ["out"]


def test_what_no_family_has_is_said_before_anything_is_written(train, tmp_path, capsys):
    run = train("nano", "model.logit_soft_cap=30")
    out = tmp_path / "deep/out"
    export(run, out, code=2)
    said = capsys.readouterr().err
    assert "qwen3 cannot express logit_soft_cap=30.0 (it has None)" in said
    assert "Trained with what qwen3 has, a model can be exported." in said
    assert list(tmp_path.glob("deep/*")) == []


def test_no_run_is_said(tmp_path, capsys):
    export(tmp_path, tmp_path / "out", code=1)
    assert "not a run folder" in capsys.readouterr().err


KILLED = """
import sys, time
from pathlib import Path
from llm.hub import huggingface
def wait(*_, **__):
    Path(sys.argv[1]).touch()
    time.sleep(600)
huggingface.card = wait
from llm.cli.main import main
main(sys.argv[2:])
"""


def test_a_killed_export_leaves_nothing(python, train, tmp_path):
    run, out, reached = train("nano"), tmp_path / "out", tmp_path / "reached"
    words = [python, "-c", KILLED, str(reached), "export", f"run={run}", f"out={out}"]
    child = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    while not reached.exists():
        assert child.poll() is None
        time.sleep(0.05)
    (partial,) = [path for path in tmp_path.iterdir() if path.name.startswith(".out")]
    assert (partial / "model.safetensors").is_file()
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not out.exists()
    export(run, out)
    assert beside(out) == ["out"]
    assert (out / "README.md").is_file()


def test_the_table_and_the_config_name_the_same_formats():
    (kinds,) = [get_type_hints(ExportConfig)["format"]]
    assert set(kinds.__args__) == set(FORMATS)


@pytest.fixture
def go_on(tiny, tmp_path, capsys):
    """Train on from a folder; gives the exit code and what was said."""
    kept = [word for word in tiny if not word.startswith(("model", "tokenizer"))]

    def started(start, *more):
        code = main(
            [
                "train",
                *kept,
                f"init_from={start}",
                "name=b",
                "trainer.max_steps=1",
                "optimizer.lr=1e-12",
                *more,
            ]
        )
        return code, capsys.readouterr().err

    return started


@pytest.mark.parametrize("name", ["nano", "gpt_nano", "bert_nano"])
def test_an_export_is_trained_on(name, train, go_on, tmp_path):
    run, out = train(name), tmp_path / "out"
    export(run, out, "shard_bytes=30000")
    assert go_on(out, f"task={KINDS[name][0]}") == (0, "")
    ours, again = (load_tokenizer(folder / "tokenizer") for folder in (run, tmp_path / "runs/b"))
    for text in (Path(__file__).read_text(), "<|endoftext|>\u2581 é\n\t  ", "\0"):
        assert again.encode(text) == ours.encode(text)
        assert again.decode(again.encode(text)) == text
    first, second = (
        json.loads((folder / "evaluation.json").read_text())[0]["metrics"]
        for folder in (run, tmp_path / "runs/b")
    )
    assert second["tokens"] == first["tokens"]
    assert second["loss"] == pytest.approx(first["loss"], rel=2e-6)
    # And it is exported again.
    export(tmp_path / "runs/b", tmp_path / "again")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "again")("a b")["input_ids"] == ours.encode(
        "a b"
    )


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def with_state(change):
    """Change the tensors of an export."""

    def changed(folder):
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return changed


def other_tokenizer(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    del content["model"]["vocab"][max(content["model"]["vocab"], key=content["model"]["vocab"].get)]
    content["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(content))


BROKEN = {
    "model_type": (lambda out: edit(out / "config.json", model_type="qwen4"), 2, "model_type 'qwen4' is not supported, only qwen3"),
    "missing": (with_state(lambda state: state.pop("model.norm.weight")), 1, "model.norm.weight is missing"),
    "extra": (with_state(lambda state: state.update({"x.weight": torch.ones(2)})), 1, "x.weight is not part of the model"),
    "shape": (with_state(lambda state: state.update({"model.norm.weight": torch.ones(2)})), 1, "model.norm.weight is (2,), not (32,)"),
    "pickle": (lambda out: (out / "model.safetensors").rename(out / "pytorch_model.bin"), 1, "pytorch_model.bin is not opened, since a pickle can run code"),
    "tokenizer": (other_tokenizer, 2, "the model has 500 tokens, and the tokenizer beside it 499"),
    "no tokenizer": (lambda out: (out / "tokenizer.json").unlink(), 2, "is neither a folder with tokenizer.json nor"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_in):
    folder = tmp_path_factory.mktemp("whole")
    assert main(["train", *words(tiny_in(folder), "nano"), "name=nano", "trainer.max_steps=1"]) == 0
    export(folder / "runs/nano", folder / "out")
    return folder / "out"


def test_an_export_that_fails_leaves_nothing(whole, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("llm.hub.huggingface.card", full)
    export(whole.parent / "runs/nano", tmp_path / "out", code=1)
    assert "The disk is full. Make room" in capsys.readouterr().err
    assert beside(tmp_path / "out") == []


@pytest.mark.parametrize("what", BROKEN)
def test_a_folder_that_is_wrong_is_said_before_anything_is_written(what, whole, go_on, tmp_path):
    import shutil

    folder = shutil.copytree(whole, tmp_path / "broken")
    change, code, message = BROKEN[what]
    change(folder)
    done, said = go_on(folder)
    assert (done, message in said) == (code, True), said
    assert not (tmp_path / "runs/b").exists()
