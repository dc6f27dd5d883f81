"""The files of conf/tokenizer name specs that exist and keys that they take."""

import importlib
from pathlib import Path

import pytest
import yaml

from llm.tokenizer import SPECIAL_TOKENS

CONF = Path(__file__).parents[2] / "conf" / "tokenizer"


def read(name):
    return yaml.safe_load((CONF / f"{name}.yaml").read_text("utf-8"))


@pytest.mark.parametrize("name", ["bpe", "unigram", "byte", "pretrained"])
def test_a_file_makes_its_spec(name):
    values = read(name)
    module, _, spec = values.pop("_target_").rpartition(".")
    made = getattr(importlib.import_module(module), spec)(**values)
    assert made.needs_text == (name in ("bpe", "unigram"))
    assert tuple(values.get("special_tokens", SPECIAL_TOKENS)) == SPECIAL_TOKENS


def test_the_default_vocabulary():
    assert read("bpe")["vocab_size"] == read("unigram")["vocab_size"] == 4096
    assert [read(name)["algorithm"] for name in ("bpe", "unigram")] == ["bpe", "unigram"]
