"""What `format=hf` shows beside weights: the card's code and the line to type next run, and give what our model gives."""

import dataclasses
import re
import shlex

import pytest
import torch

from llm.hub.export import About
from llm.hub.huggingface import write
from llm.model import ModelConfig, Transformer, init_weights
from llm.tokenizer import ByteSpec

pytest.importorskip("transformers")

BYTES = ByteSpec().build()
BERT = ModelConfig(
    d_model=32,
    n_layers=2,
    n_heads=2,
    d_ff=48,
    context_length=40,
    vocab_size=BYTES.vocab_size,
    architecture="encoder",
    norm="layer",
    residual="post",
    position="learned",
    activation="gelu",
    attention_bias=True,
    mlp_bias=True,
    embedding_norm=True,
    n_segments=2,
)


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    """Write a model of random weights; gives it, and what the card's code prints and the ids that it reads."""
    monkeypatch.chdir(tmp_path)

    def show(**changes):
        model = Transformer(dataclasses.replace(BERT, **changes)).eval()
        init_weights(model, seed=0)
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
        (tmp_path / "spam").mkdir()
        line, *_ = write(tmp_path / "spam", model, BYTES, About(name="spam", out=tmp_path / "spam"))
        card = (tmp_path / "spam/README.md").read_text()
        names = {}
        exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)
        printed = capsys.readouterr().out
        exec(shlex.split(line)[2], {})
        assert capsys.readouterr().out == printed
        return model, printed, names["tokenizer"](names["text"], return_tensors="pt")["input_ids"]

    return show


@torch.no_grad()
def test_the_tags_of_words(shown):
    model, printed, ids = shown(labels=("B-x", "I-x", "O"), labelled="words")
    assert printed == f"{[model.config.labels[n] for n in model(ids)[0].argmax(-1).tolist()]}\n"
    assert len(set(model(ids)[0].argmax(-1).tolist())) > 1
    assert ids[0].tolist() == [BYTES.end_of_text, *BYTES.encode("a text"), BYTES.end_of_text]


@torch.no_grad()
def test_the_edges_of_an_answer(shown):
    model, printed, ids = shown(labels=("start", "end"), labelled="answer")
    end, question, passage = BYTES.end_of_text, BYTES.encode("a question"), BYTES.encode("a passage")
    assert ids[0].tolist() == [end, *question, end, *passage, end]
    segments = torch.tensor([[0] * (len(question) + 2) + [1] * (len(passage) + 1)])
    start, stop = model(ids, segments_bt=segments)[0].argmax(0).tolist()
    assert printed == BYTES.decode(ids[0, start : stop + 1].tolist()) + "\n"


@torch.no_grad()
def test_the_probabilities_of_labels(shown):
    model, printed, ids = shown(labels=("bad", "good"), pooler=True)
    assert f"{model(ids)[0, 0].softmax(-1)[0].item():.3f}" in printed
    assert "{0: 'bad', 1: 'good'}" in printed


@torch.no_grad()
def test_hidden_states(shown):
    model, printed, ids = shown(pooler=True)
    assert printed == f"{model.hidden_states(ids).mean(1)}\n"


def test_a_number_is_refused(shown):
    from llm.errors import ConfigError

    with pytest.raises(ConfigError, match=r"labelled=number \(it has text\)"):
        shown(labels=("number",), labelled="number", pooler=True, number_mean=3.0)
