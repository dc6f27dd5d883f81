"""The evaluations by name: each takes what is to be scored and gives its figures."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llm.data import TokenStream
from llm.data.collators.base import Collator, ScoredBy, scored_by
from llm.data.collators.packed import Packed
from llm.data.collators.pairs import Pairs
from llm.data.collators.preferences import PreferenceCollator
from llm.errors import ConfigError
from llm.evaluation.classification import (
    confusion,
    label_figures,
    predicted_labels,
    reliability,
    score_numbers,
)
from llm.evaluation.code import parse_share, parses
from llm.evaluation.compression import xz_bits_per_byte
from llm.evaluation.examples import DocumentSums, label_rows, read_texts, text_id
from llm.evaluation.masked import Hidden, score_masked
from llm.evaluation.pairs import (
    answered_beside_targets,
    match_figures,
    summary_result,
    written_beside_targets,
)
from llm.evaluation.perplexity import score_stream
from llm.evaluation.preferences import score_preferences
from llm.evaluation.questions import score_answers
from llm.evaluation.result import Result
from llm.evaluation.tagging import score_tags
from llm.evaluation.targets import score_targets
from llm.generation import Sampling, complete
from llm.model import Transformer
from llm.tokenizer import Tokenizer, mask_token

CODE_SAMPLES = 64
CODE_TOKENS = 64
CODE_TEMPERATURE = 0.8
MOST_PAIRS = 500
# The evaluation of a model with labels, by what they tell.
LABELLED = {"text": "classification", "words": "tagging", "answer": "qa", "number": "regression"}


@dataclass(frozen=True)
class Subject:
    """A model and the held-out text that it is scored on.

    Args:
        model: in evaluation mode or not; it is left as it was.
        tokenizer: the model's.
        stream: the held-out documents, in the model's tokens.
        collator: makes what makes batches of them as for training; see `collate`.
        objective: gives what scored that in training.
        batch_size: windows scored at a time.
        seed: of what is sampled.
    """

    model: Transformer
    tokenizer: Tokenizer
    stream: TokenStream
    collator: Callable[[], Collator]
    objective: Callable[[], Any]
    batch_size: int
    seed: int

    @cached_property
    def collate(self) -> Collator:
        """What makes batches of the documents as for training; made when it is asked for, since eval=compression needs none."""
        return self.collator()


def perplexity(subject: Subject) -> Result:
    """How well held-out text is predicted, by what the model's task predicts; the examples are documents.

    Next tokens (of chats the assistant's, of pairs the target's, of a prefix LM those after the prefix), as loss, perplexity
    and bits per byte; or hidden tokens, as loss, pseudo-perplexity and accuracy. The collator says which, see
    `llm.data.collators.base.scored_by`.
    """
    _without_labels("perplexity", subject)
    collate = subject.collate
    if getattr(collate, "of_preferences", False):
        raise ConfigError("eval=perplexity: preferences have no perplexity. eval=preferences scores them.")
    return PERPLEXITIES[scored_by(collate)](subject, collate)


def _of_tokens(subject: Subject, collate: Collator) -> Result:
    """Of each token of the text."""
    sums = DocumentSums(subject.stream)
    metrics = score_stream(subject.model, subject.stream, batch_size=subject.batch_size, each=sums.add)
    return Result(metrics, subject.stream.n_documents, sums.rows(subject.tokenizer, metrics))


def _of_hidden_tokens(subject: Subject, collate: Collator) -> Result:
    """Of each token of the text, hidden."""
    sums = DocumentSums(subject.stream)
    ids = Hidden(mask_token(subject.tokenizer), subject.tokenizer.end_of_text)
    metrics = score_masked(subject.model, subject.stream, ids, batch_size=subject.batch_size, each=sums.add)
    return Result(metrics, subject.stream.n_documents, sums.rows(subject.tokenizer, metrics))


def _of_targets(subject: Subject, collate: Collator) -> Result:
    """Of the targets that the collator makes."""
    metrics = score_targets(
        subject.model,
        subject.stream,
        collate,
        subject.tokenizer,
        seed=subject.seed,
        batch_size=subject.batch_size,
    )
    return Result(metrics, subject.stream.n_documents)


PERPLEXITIES: dict[ScoredBy, Callable[[Subject, Collator], Result]] = {
    "tokens": _of_tokens,
    "hidden_tokens": _of_hidden_tokens,
    "targets": _of_targets,
}


def compression(subject: Subject) -> Result:
    """What `xz -9` makes of the same bytes, joined: the yardstick beside the model's bits per byte."""
    data = subject.tokenizer.decode_bytes(subject.stream.tokens.tolist())
    return Result(
        {"xz_bits_per_byte": xz_bits_per_byte(data), "bytes": len(data)}, subject.stream.n_documents
    )


def code(subject: Subject) -> Result:
    """The share of sampled documents that Python's parser accepts, as far as they were written."""
    _without_labels("code", subject)
    if subject.model.config.architecture != "decoder":
        raise ConfigError(
            "eval=code: only a decoder writes documents. eval=perplexity tells how others fill in what is hidden."
        )
    texts = complete(
        subject.model,
        subject.tokenizer,
        "",
        num_samples=CODE_SAMPLES,
        sampling=Sampling(temperature=CODE_TEMPERATURE),
        max_new_tokens=CODE_TOKENS,
        seed=subject.seed,
    )
    rows = [
        {"id": str(number), "text": text, "scores": {"parse_share": [float(parses(text)), 1.0]}}
        for number, text in enumerate(texts)
    ]
    return Result({"parse_share": parse_share(texts)}, len(texts), rows)


def pairs(subject: Subject) -> Result:
    """Exact match and chrF of what is written for held-out sources, the first `MOST_PAIRS` of them."""
    _, written, targets = _written("pairs", subject)
    rows = [
        {
            "id": text_id(f"{number} {target}"),
            "target": target,
            "written": text,
            "scores": {"exact_match": [float(text == target), 1.0]},
        }
        for number, (text, target) in enumerate(zip(written, targets, strict=True))
    ]
    return Result(match_figures(written, targets), len(targets), rows)


def _written(name: str, subject: Subject) -> tuple[list[str], list[str], list[str]]:
    """The first `MOST_PAIRS` held-out sources, what is written for them, and their targets."""
    view = subject.collate.samples(subject.stream, subject.model.config.context_length, subject.seed)
    if isinstance(view, Packed) and not subject.model.config.labels:
        return answered_beside_targets(
            subject.model, view, subject.tokenizer, limit=MOST_PAIRS, batch_size=subject.batch_size
        )
    if not isinstance(view, Pairs) or subject.model.config.labels:
        raise ConfigError(f"eval={name}: it is for models of pairs of texts, such as task=seq2seq trains.")
    return written_beside_targets(
        subject.model, view, subject.tokenizer, limit=MOST_PAIRS, batch_size=subject.batch_size
    )


def classification(subject: Subject) -> Result:
    """Accuracy, F1 and calibration of the labels that texts are given."""
    _with_labels("classification", subject)
    collate = subject.collate
    logits_nl, targets_n = predicted_labels(
        subject.model, subject.stream, collate, batch_size=subject.batch_size
    )
    labels = subject.model.config.labels
    details = {
        "labels": list(labels),
        "confusion": confusion(logits_nl.argmax(-1), targets_n, len(labels)),
        "reliability": reliability(logits_nl, targets_n),
    }
    texts = read_texts(subject.stream, collate, subject.tokenizer)
    rows = label_rows(texts, labels, logits_nl, targets_n)
    return Result(label_figures(logits_nl, targets_n), len(targets_n), rows, details)


def preferences(subject: Subject) -> Result:
    """How often, and by how much, better answers are rewarded above worse ones; the loss of the run's own objective."""
    collate = subject.collate
    if not isinstance(collate, PreferenceCollator):
        raise ConfigError("eval=preferences: it is for models of preferences, such as task=dpo trains.")
    return score_preferences(
        subject.model,
        subject.stream,
        collate,
        subject.tokenizer,
        subject.objective(),
        batch_size=subject.batch_size,
    )


def tagging(subject: Subject) -> Result:
    """Accuracy of the tags that words are given, and F1 of the entities that they mark; the examples are sentences."""
    _with_labels("tagging", subject)
    return score_tags(subject.model, subject.stream, subject.collate, subject.tokenizer)


def qa(subject: Subject) -> Result:
    """Exact match and F1 of answers to questions on passages; the examples are questions."""
    _with_labels("qa", subject)
    return score_answers(subject.model, subject.stream, subject.collate, subject.tokenizer)


def regression(subject: Subject) -> Result:
    """Squared error and correlation of the numbers that are predicted for texts."""
    _with_labels("regression", subject)
    return score_numbers(
        subject.model, subject.stream, subject.collate, subject.tokenizer, batch_size=subject.batch_size
    )


def summarization(subject: Subject) -> Result:
    """ROUGE, chrF and matches of what is written for held-out texts, the first `MOST_PAIRS`, beside their first lines' ROUGE."""
    return summary_result(*_written("summarization", subject))


def _with_labels(name: str, subject: Subject) -> None:
    config = subject.model.config
    if not config.labels:
        raise ConfigError(f"eval={name}: it is for models with labels, such as task={name} trains.")
    if LABELLED[config.labelled] != name:
        raise ConfigError(
            f"eval={name}: the model was trained by task={LABELLED[config.labelled]}. eval={LABELLED[config.labelled]} scores it."
        )


def _without_labels(name: str, subject: Subject) -> None:
    config = subject.model.config
    if config.labels:
        raise ConfigError(
            f"eval={name}: a model with labels predicts no tokens. eval={LABELLED[config.labelled]} scores it."
        )


EVALUATIONS: dict[str, Callable[[Subject], Result]] = {
    "perplexity": perplexity,
    "compression": compression,
    "code": code,
    "pairs": pairs,
    "classification": classification,
    "preferences": preferences,
    "tagging": tagging,
    "qa": qa,
    "regression": regression,
    "summarization": summarization,
}
