"""What an encoder writes: the tokens that a text hides."""

import torch

from llm.errors import ConfigError
from llm.generation.mode import inference
from llm.model import Transformer
from llm.tokenizer import MASK, Tokenizer, mask_token


def fill(model: Transformer, tokenizer: Tokenizer, text: str) -> str:
    """`text` with the likeliest token in place of each <mask>, all told at once.

    Raises:
        ConfigError: the text is longer than the model's context, or the tokenizer has no mask token.
    """
    mask = mask_token(tokenizer)
    first, *others = (tokenizer.encode(part) for part in text.split(MASK))
    ids = [tokenizer.end_of_text, *first]
    for part in others:
        ids += [mask, *part]
    if len(ids) > model.config.context_length:
        raise ConfigError(
            f"The text has {len(ids)} tokens, and the model sees {model.config.context_length}."
        )
    tokens_bt = torch.tensor([ids], device=next(model.parameters()).device)
    with inference(model):
        likeliest_bt = model(tokens_bt).argmax(-1)
    return tokenizer.decode(torch.where(tokens_bt == mask, likeliest_bt, tokens_bt)[0].tolist())


def show_hidden(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text of `ids` with <mask> where a token is hidden."""
    mask = mask_token(tokenizer)
    texts: list[str] = []
    part: list[int] = []
    for id_ in ids:
        if id_ == mask:
            texts.append(tokenizer.decode(part))
            part = []
        else:
            part.append(id_)
    return MASK.join([*texts, tokenizer.decode(part)])
