"""What a model does with a text, as its config says, and its tokenizer."""

from llm.model import Transformer
from llm.tokenizer import MASK, Tokenizer, writes_targets


def is_generative(model: Transformer) -> bool:
    """Whether a model writes token by token, be it on from a prompt or a target for a source."""
    return model.config.architecture != "encoder" and not model.config.labels


def kind_of(model: Transformer) -> str:
    """What a model is, for an error that says what it should have been."""
    return "one with labels" if model.config.labels else model.config.architecture


def is_decoder_lm(model: Transformer) -> bool:
    """Whether what a model writes stands behind what it reads, in one sequence: a decoder that writes."""
    return model.config.architecture == "decoder" and not model.config.labels


def continues_prompt(model: Transformer, tokenizer: Tokenizer) -> bool:
    """Whether a model goes on from a prompt; what else writes was trained on pairs, or to restore what a text hides."""
    return is_decoder_lm(model) and not writes_targets(tokenizer)


def responds_whole(model: Transformer, text: str) -> bool:
    """Whether what a model says of `text` comes from `llm.generation.respond`, whole, and not from the batched engine.

    So come labels, what an encoder fills in, and the spans that a text hides from an encoder-decoder, which writes them to
    be put into the text. All else is written token by token, behind a prompt or as a target.
    """
    return not is_generative(model) or (not is_decoder_lm(model) and MASK in text)
