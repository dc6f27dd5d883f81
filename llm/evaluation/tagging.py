"""How well a model tags the words of sentences.

Shapes: w words, l labels.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from llm.data.collators.base import Collator
from llm.data.collators.tags import TagCollator
from llm.data.collators.words import LabelledWords, Window
from llm.data.corpus import TokenStream
from llm.data.documents.bio import Entity, entities, is_bio
from llm.errors import ConfigError, DataError
from llm.evaluation.examples import text_id
from llm.evaluation.result import Result, Row, figures_of
from llm.generation.tagging import best_tags, scored_once, word_scores
from llm.model import Transformer
from llm.tokenizer import Tokenizer

READ_AT_ONCE = 256  # windows


def score_tags(model: Transformer, stream: TokenStream, collate: Collator, tokenizer: Tokenizer) -> Result:
    """How all sentences of a stream are tagged: `tag_result`, and the loss in nats a word.

    Raises:
        ConfigError: the collator makes no tagged sentences.
        DataError: there is no sentence, or one has a tag that the model doesn't know.
    """
    if not isinstance(collate, TagCollator):
        raise ConfigError("eval=tagging: it is for models that task=tagging trains.")
    view = collate.samples(stream, model.config.context_length, 0)
    texts, wanted, predicted, nats = [], [], [], []
    for document, windows, scores in read_documents(model, view, tokenizer):
        scores_wl = scored_once(windows, scores)
        tags = view.tags(document)
        label_ids_w = torch.tensor([collate.label_id(tag) for tag in tags])
        nats.append(torch.nn.functional.cross_entropy(scores_wl, label_ids_w, reduction="sum").item())
        texts.append(view.shown(document, tokenizer))
        wanted.append(tags)
        predicted.append(best_tags(scores_wl, model.config.labels))
    if not wanted:
        raise DataError("There is nothing to score: no sentence is held out.")
    return tag_result(model.config.labels, texts, wanted, predicted, nats)


def read_documents(
    model: Transformer, view: LabelledWords, tokenizer: Tokenizer, *, whole: bool = False
) -> Iterator[tuple[int, list[Window], list[Tensor]]]:
    """Each document, its windows, which follow one another, and the scores of each (see `word_scores`)."""

    def read() -> Iterator[tuple[Window, Tensor]]:
        for first in range(0, view.n_in_order, READ_AT_ONCE):
            windows = view.in_order(np.arange(first, min(first + READ_AT_ONCE, view.n_in_order)))
            yield from zip(windows, word_scores(model, tokenizer, windows, whole=whole), strict=True)

    for document, group in groupby(read(), key=lambda pair: pair[0].document):
        windows, scores = zip(*group, strict=True)
        yield document, list(windows), list(scores)


def tag_result(
    labels: Sequence[str],
    texts: Sequence[str],
    wanted: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    nats: Sequence[float] | None = None,
) -> Result:
    """How sentences are tagged, by their texts, the tags that are right and those predicted; an example is a sentence.

    accuracy, majority (the accuracy of always saying the commonest tag) and, where all `labels` that there are are of BIO,
    precision, recall and f1 of the entities that are right to the word, over all kinds, and f1_x of each kind x that is
    right somewhere; 0 where nothing is to be divided by. `nats` are each sentence's, for the loss a word.
    """
    counts = Counter(tag for tags in wanted for tag in tags)
    ((commonest, _),) = counts.most_common(1)
    kinds = sorted({one.kind for tags in wanted for one in entities(tags)}) if is_bio(labels) else None
    rows: list[Row] = []
    for number, (text, right, given) in enumerate(zip(texts, wanted, predicted, strict=True)):
        scores = {} if nats is None else {"loss": [nats[number], float(len(right))]}
        scores["accuracy"] = [float(sum(map(str.__eq__, right, given))), float(len(right))]
        scores["majority"] = [float(right.count(commonest)), float(len(right))]
        if kinds is not None:
            scores |= _entity_scores({*entities(right)}, {*entities(given)}, kinds)
        rows.append(
            {"id": text_id(text), "text": text, "target": [*right], "prediction": [*given], "scores": scores}
        )
    return Result(figures_of(rows), len(rows), rows)


def _entity_scores(right: set[Entity], given: set[Entity], kinds: Sequence[str]) -> dict[str, list[float]]:
    both = float(len(right & given))
    scores = {
        "precision": [both, float(len(given))],
        "recall": [both, float(len(right))],
        "f1": [2 * both, float(len(right) + len(given))],
    }
    for kind in kinds:
        of_kind = [{one for one in some if one.kind == kind} for some in (right, given)]
        agreed = float(len(of_kind[0] & of_kind[1]))
        scores[f"f1_{kind}"] = [2 * agreed, float(sum(map(len, of_kind)))]
    return scores
