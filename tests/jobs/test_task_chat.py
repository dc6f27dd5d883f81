"""Chats trained by the same commands: from scratch, on from a run or a folder of Hugging Face's, asked, exported, resumed."""

import io
import json

import numpy as np
import pytest
import torch

from llm.cli.main import main
from llm.tokenizer import ChatTemplate, load_tokenizer
from llm.train import checkpoint

QUESTIONS = {"red?": "stop", "green?": "go", "blue?": "wait"}


@pytest.fixture
def words(tiny, tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"{ask} {n % 25}"}, {"role": "assistant", "content": say}]}
        for n in range(75)
        for ask, say in [list(QUESTIONS.items())[n % 3]]
    ]
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, rows)))
    kept = [
        word
        for word in tiny
        if not word.startswith(("data=", "data.paths", "samples.every", "model.context"))
    ]
    data = ["data=chat", f"data.paths=[{tmp_path}/chat.jsonl]", "data.validation_share=0.2"]
    return [*kept, *data, "task=chat", "samples.every_n_steps=2", "model.context_length=96"]


def weights(folder):
    return checkpoint.read_model(checkpoint.find(folder / "checkpoints", None))[1]


def test_a_run_learns_to_answer_and_is_asked(words, tmp_path, capsys, monkeypatch):
    kept = [word for word in words if not word.startswith("data.micro_batch_size")]
    recipe = ["trainer.max_steps=80", "optimizer.lr=1e-2", "data.micro_batch_size=8", "name=c"]
    assert main(["train", *kept, *recipe]) == 0
    assert "llm chat run=" in capsys.readouterr().out
    folder = tmp_path / "runs/c"
    (entry,) = json.loads((folder / "evaluation.json").read_text())
    assert entry["metrics"]["bits_per_byte"] < 0.5
    # Scored are the answers, with the ends of turns, of the held-out conversations alone.
    n_bytes = {len(say) for say in QUESTIONS.values()}
    assert min(n_bytes) * entry["examples"] <= entry["metrics"]["bytes"] <= max(n_bytes) * entry["examples"]
    assert entry["metrics"]["tokens"] == entry["metrics"]["bytes"] + entry["examples"]
    rows = (folder / "metrics.csv").read_text().splitlines()
    last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    tokens_per_byte = entry["metrics"]["tokens"] / entry["metrics"]["bytes"]
    bits = float(last["train/loss"]) / np.log(2) * tokens_per_byte
    assert float(last["train/bits_per_byte"]) == pytest.approx(bits, rel=0.1)
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[-1])
    question = sample["prompt"].split("\n")[1].split()[0]
    assert sample["text"] == QUESTIONS[question]
    monkeypatch.setattr("sys.stdin", io.StringIO("red? 7\n/new\ngreen? 3\n"))
    capsys.readouterr()
    assert main(["chat", f"run={folder}", "temperature=0"]) == 0
    said = capsys.readouterr()
    assert said.out.split() == ["stop", "go"]
    assert "not trained to chat" not in said.err


def test_a_resumed_chat_equals_one_that_was_never_stopped(words, tmp_path):
    assert main(["train", *words, "name=whole", "trainer.max_steps=8"]) == 0
    assert (
        main(
            [
                "train",
                *words,
                "name=again",
                f"resume={tmp_path}/runs/whole/checkpoints/step_00000004",
                "trainer.max_steps=8",
            ]
        )
        == 0
    )
    whole, again = weights(tmp_path / "runs/whole"), weights(tmp_path / "runs/again")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_run_goes_on_to_chat_and_another_set_is_scored(tiny, words, tmp_path, capsys):
    longer = [word for word in tiny if not word.startswith("model.context")]
    assert main(["train", *longer, "model.context_length=96", "name=base", "trainer.max_steps=2"]) == 0
    kept = [word for word in words if not word.startswith(("model", "tokenizer"))]
    assert main(["train", *kept, f"init_from={tmp_path}/runs/base", "name=c", "trainer.max_steps=2"]) == 0
    before, after = (load_tokenizer(tmp_path / "runs" / name / "tokenizer") for name in ("base", "c"))
    assert before.chat_template is None
    assert "im_start" in after.chat_template
    assert before.encode("a text") == after.encode("a text")
    (tmp_path / "other.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bcd"}]})
    )
    shards = next(word for word in words if word.startswith("shards_dir="))
    other = ["data=chat", f"data.paths=[{tmp_path}/other.jsonl]", shards]
    assert main(["evaluate", f"run={tmp_path}/runs/c", *other]) == 0
    entry = json.loads((tmp_path / "runs/c/evaluation.json").read_text())[-1]
    assert (entry["metrics"]["bytes"], entry["metrics"]["tokens"]) == (3, 4)


def test_an_exported_chat_is_read_alike_by_transformers_and_from_there(words, tmp_path):
    transformers = pytest.importorskip("transformers")
    assert main(["train", *words, "name=c", "trainer.max_steps=2"]) == 0
    out = tmp_path / "hf"
    assert main(["export", f"run={tmp_path}/runs/c", f"out={out}"]) == 0
    tokenizer = load_tokenizer(tmp_path / "runs/c/tokenizer")
    talk = [{"role": "user", "content": "red? 1"}]
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    wanted = theirs.apply_chat_template(talk, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert ChatTemplate(tokenizer).prompt(talk) == wanted
    ends = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [tokenizer.special_tokens["<|im_end|>"], tokenizer.end_of_text]
    kept = [word for word in words if not word.startswith(("model", "tokenizer"))]
    assert main(["train", *kept, f"init_from={out}", "name=d", "trainer.max_steps=2"]) == 0
    again = load_tokenizer(tmp_path / "runs/d/tokenizer")
    assert ChatTemplate(again).prompt(talk) == wanted


def test_gguf_holds_the_template(words, tmp_path):
    pytest.importorskip("gguf")
    from llm.hub.gguf.reader import from_gguf

    assert main(["train", *words, "name=c", "trainer.max_steps=2"]) == 0
    out = tmp_path / "c.gguf"
    assert main(["export", f"run={tmp_path}/runs/c", "format=gguf", f"out={out}"]) == 0
    talk = [{"role": "user", "content": "red? 1"}]
    ours, theirs = load_tokenizer(tmp_path / "runs/c/tokenizer"), from_gguf(out)[2]
    assert "generation %}" not in theirs.chat_template
    assert ChatTemplate(theirs).prompt(talk) == ChatTemplate(ours).prompt(talk)
    assert ChatTemplate(theirs).stop_ids == ChatTemplate(ours).stop_ids


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model=bert_nano"], "task needs architecture=decoder"),
        (["task.collator.too_long=shorten"], "task.collator.too_long=shorten"),
        (["task.template=/nowhere.jinja"], "task.template=/nowhere.jinja"),
        (["model.context_length=8"], "have no answer within it"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(words, changes, message, tmp_path, capsys):
    replaced = {change.partition("=")[0] for change in changes}
    kept = [word for word in words if word.partition("=")[0] not in replaced]
    assert main(["train", *kept, *changes, "name=x"]) != 0
    shown = capsys.readouterr()
    assert message in shown.err + shown.out
    assert not (tmp_path / "runs/x").exists()
