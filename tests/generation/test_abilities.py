"""What each kind of model does with a text: it goes on, writes a target, or responds whole."""

import pytest
import torch

from llm.generation import continues_prompt, is_decoder_lm, is_generative, responds_whole
from llm.model import ModelConfig, Transformer
from llm.tokenizer import MASK, ByteSpec
from llm.tokenizer.chat import PAIR, with_end
from tests.small_models import SHAPE

TOKENIZER = ByteSpec().build()
PAIRS = TOKENIZER.with_chat_template(with_end(PAIR, TOKENIZER))
LABELS = {"pooler": True, "labels": ("good", "bad")}


@pytest.mark.parametrize(
    ("shape", "tokenizer", "can", "whole"),
    [
        ({}, TOKENIZER, (True, True, True), (False, False)),
        ({}, PAIRS, (True, True, False), (False, False)),
        ({"architecture": "encoder_decoder"}, TOKENIZER, (True, False, False), (False, True)),
        ({"architecture": "encoder"}, TOKENIZER, (False, False, False), (True, True)),
        ({"architecture": "encoder", **LABELS}, TOKENIZER, (False, False, False), (True, True)),
    ],
    ids=["decoder", "decoder of pairs", "encoder-decoder", "encoder", "labels"],
)
def test_what_a_model_does_with_a_text(shape, tokenizer, can, whole):
    with torch.device("meta"):
        model = Transformer(ModelConfig(**SHAPE | shape))
    assert (is_generative(model), is_decoder_lm(model), continues_prompt(model, tokenizer)) == can
    assert (responds_whole(model, "a text"), responds_whole(model, f"a {MASK}")) == whole
