"""What a text is, as a model with labels predicts: a label, or a number.

Shapes: b batch, t time, l labels.
"""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from llm.generation.mode import inference
from llm.model import Transformer
from llm.model.mask import PADDING
from llm.tokenizer import Tokenizer, framed


def classify(model: Transformer, tokenizer: Tokenizer, texts: Sequence[str]) -> list[dict[str, float]]:
    """The probability of each label for each text, the likeliest first; a long text is judged by its beginning."""
    probabilities_bl = _scores(model, tokenizer, texts).softmax(-1)
    return [
        dict(sorted(zip(model.config.labels, row, strict=True), key=lambda pair: -pair[1]))
        for row in probabilities_bl.tolist()
    ]


def estimate(model: Transformer, tokenizer: Tokenizer, texts: Sequence[str]) -> list[float]:
    """The number that a model of labelled=number predicts for each text, by its beginning where it is long."""
    return _scores(model, tokenizer, texts)[:, 0].tolist()


def _scores(model: Transformer, tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """The scores (b, l) of texts in float32."""
    device = next(model.parameters()).device
    longest = model.config.context_length
    rows = [torch.tensor(framed(tokenizer, tokenizer.encode(text), longest)) for text in texts]
    tokens_bt = pad_sequence(rows, batch_first=True, padding_value=PADDING).to(device)
    is_padding_bt = tokens_bt == PADDING
    last_b = (~is_padding_bt).sum(1) - 1
    where_b = torch.zeros_like(last_b) if model.config.architecture == "encoder" else last_b
    with inference(model):
        logits_b1l = model(
            tokens_bt.masked_fill(is_padding_bt, tokenizer.end_of_text),
            documents_bt=torch.where(is_padding_bt, PADDING, 0),
            positions_bk=where_b[:, None],
        )
    return logits_b1l[:, 0].float()
