"""How well a model tells better answers from worse ones, beside the reference model.

Shapes: b batch.
"""

import numpy as np

from llm.data.collators.preferences import PreferenceCollator
from llm.data.corpus import TokenStream
from llm.errors import DataError
from llm.evaluation.examples import text_id
from llm.evaluation.result import Result, Row, figures_of
from llm.generation.mode import inference
from llm.model import Transformer
from llm.objective.preference import PreferenceLoss
from llm.tokenizer import Tokenizer


def score_preferences(
    model: Transformer,
    stream: TokenStream,
    collate: PreferenceCollator,
    tokenizer: Tokenizer,
    objective: PreferenceLoss,
    *,
    batch_size: int = 8,
) -> Result:
    """loss, reward_accuracy and reward_margin over all preferences of a stream, each an example."""
    rows: list[Row] = []
    view = collate.samples(stream, model.config.context_length, 0)
    device = next(model.parameters()).device
    for first in range(0, view.n_in_order, batch_size):
        places = np.arange(first, min(first + batch_size, view.n_in_order))
        batch = collate(view.in_order(places), places).to(device)
        with inference(model):
            margins_b = objective.margins(model, batch)[0].double().cpu()
        losses = objective.losses(margins_b).tolist()
        indices = view.indices[places].tolist()
        for index, margin, loss in zip(indices, margins_b.tolist(), losses, strict=True):
            better, worse = (tokenizer.decode(side.ids_t.tolist()) for side in view.sides(index))
            scores = {"loss": loss, "reward_accuracy": float(margin > 0), "reward_margin": margin}
            rows.append(
                {
                    "id": text_id(f"{better}\n{worse}"),
                    "better": better,
                    "worse": worse,
                    "scores": {name: [value, 1.0] for name, value in scores.items()},
                }
            )
    if not rows:
        raise DataError("There is nothing to score: no preference is held out.")
    return Result(figures_of(rows), len(rows), rows)
