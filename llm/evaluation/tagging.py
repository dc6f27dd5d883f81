"""How well a model tags the words of sentences."""

# Shape legend: w words, l labels.

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from llm.data.bio import Entity, entities, is_bio
from llm.data.collate import Collator
from llm.data.shards import TokenStream
from llm.data.tags import TagCollator
from llm.data.words import LabelledWords, Window
from llm.errors import ConfigError, DataError
from llm.generation.tagging import best_tags, scored_once, word_scores
from llm.model import Transformer
from llm.tokenizer import Tokenizer

READ_AT_ONCE = 256  # windows


def score_tags(
    model: Transformer, stream: TokenStream, collate: Collator, tokenizer: Tokenizer
) -> tuple[dict[str, float], int]:
    """Return figures of how all sentences of a stream are tagged, and how many sentences there are.

    loss in nats a word, accuracy, majority (the accuracy of always saying the commonest tag) and, of BIO tags, precision,
    recall and f1 of the entities that are right to the word, over all kinds, and f1_x of each kind.

    Raises:
        ConfigError: the collator makes no tagged sentences.
        DataError: there is no sentence, or one has a tag that the model doesn't know.
    """
    if not isinstance(collate, TagCollator):
        raise ConfigError("eval=tagging: it is for models that task=tagging trains.")
    view = collate.view(stream, model.config.context_length, 0)
    nats, wanted, told = 0.0, [], []
    for document, windows, scores in read_documents(model, view, tokenizer):
        scores_wl = scored_once(windows, scores)
        tags = view.tags(document)
        numbers_w = torch.tensor([collate.number(tag) for tag in tags])
        nats += torch.nn.functional.cross_entropy(scores_wl, numbers_w, reduction="sum").item()
        wanted.append(tags)
        told.append(best_tags(scores_wl, model.config.labels))
    if not wanted:
        raise DataError("There is nothing to score: no sentence is held out.")
    return {"loss": nats / view.n_words, **tag_figures(wanted, told)}, len(wanted)


def read_documents(
    model: Transformer, view: LabelledWords, tokenizer: Tokenizer, *, whole: bool = False
) -> Iterator[tuple[int, list[Window], list[Tensor]]]:
    """Each document, its windows, which follow one another, and the scores of each (see `word_scores`)."""

    def read() -> Iterator[tuple[Window, Tensor]]:
        for first in range(0, view.n_held_out, READ_AT_ONCE):
            windows = view.held_out(np.arange(first, min(first + READ_AT_ONCE, view.n_held_out)))
            yield from zip(windows, word_scores(model, tokenizer, windows, whole=whole), strict=True)

    for document, group in groupby(read(), key=lambda pair: pair[0].document):
        windows, scores = zip(*group, strict=True)
        yield document, list(windows), list(scores)


def tag_figures(wanted: Sequence[Sequence[str]], told: Sequence[Sequence[str]]) -> dict[str, float]:
    """The figures of `score_tags` but for its loss, of the tags of sentences, those that are right and those told."""
    counts = Counter(tag for tags in wanted for tag in tags)
    right = sum(
        one == other for pair in zip(wanted, told, strict=True) for one, other in zip(*pair, strict=True)
    )
    figures = {
        "accuracy": right / counts.total(),
        "majority": counts.most_common(1)[0][1] / counts.total(),
    }
    return figures | entity_figures(wanted, told) if is_bio(sorted(counts)) else figures


def entity_figures(wanted: Sequence[Sequence[str]], told: Sequence[Sequence[str]]) -> dict[str, float]:
    """precision, recall and f1 of entities over all kinds, f1_x of each kind x; 0 where nothing is to be divided by."""
    sets = [_entities(wanted), _entities(told)]
    figures = dict(zip(("precision", "recall", "f1"), _agreement(*sets), strict=True))
    for kind in sorted({entity.kind for _, entity in sets[0]}):
        of_kind = [{found for found in one if found[1].kind == kind} for one in sets]
        figures[f"f1_{kind}"] = _agreement(*of_kind)[2]
    return figures


def _entities(sentences: Sequence[Sequence[str]]) -> set[tuple[int, Entity]]:
    return {(number, entity) for number, tags in enumerate(sentences) for entity in entities(tags)}


def _agreement(wanted: set, told: set) -> tuple[float, float, float]:
    both = len(wanted & told)
    precision = both / len(told) if told else 0.0
    recall = both / len(wanted) if wanted else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if both else 0.0
