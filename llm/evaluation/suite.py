"""The evaluations by name: each takes what is to be judged and gives its figures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from llm.data import TokenStream
from llm.data.collate import Collator
from llm.data.pairs import Pairs
from llm.errors import ConfigError
from llm.evaluation.classification import score_labels, score_numbers
from llm.evaluation.code import parse_share
from llm.evaluation.compression import xz_bits_per_byte
from llm.evaluation.masked import Hidden, score_masked
from llm.evaluation.pairs import match_figures, rouge_figures, written_beside_targets
from llm.evaluation.perplexity import score_stream
from llm.evaluation.questions import score_answers
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
    """A model and the held-out text that it is judged on.

    Args:
        model: in evaluation mode or not; it is left as it was.
        tokenizer: the model's.
        stream: the held-out documents, in the model's tokens.
        collator: gives what makes of them what the model was trained on.
        batch_size: windows scored at a time.
        seed: of what is sampled.
    """

    model: Transformer
    tokenizer: Tokenizer
    stream: TokenStream
    collator: Callable[[], Collator]
    batch_size: int
    seed: int


class Result(NamedTuple):
    """Figures by name, and how many examples they are of."""

    metrics: dict[str, float]
    examples: int


def perplexity(subject: Subject) -> Result:
    """How well held-out text is predicted, by what the model's architecture predicts; the examples are documents.

    A decoder's next tokens: loss, perplexity and bits per byte. An encoder's hidden tokens: loss, pseudo-perplexity
    and accuracy. An encoder-decoder's targets: loss, perplexity and bits per byte.
    """
    _without_labels("perplexity", subject)
    if subject.model.config.architecture == "encoder_decoder":
        metrics = score_targets(
            subject.model,
            subject.stream,
            subject.collator(),
            subject.tokenizer,
            seed=subject.seed,
            batch_size=subject.batch_size,
        )
        return Result(metrics, subject.stream.n_documents)
    if subject.model.config.architecture == "encoder":
        ids = Hidden(mask_token(subject.tokenizer), subject.tokenizer.end_of_text)
        metrics = score_masked(subject.model, subject.stream, ids, batch_size=subject.batch_size)
        return Result(metrics, subject.stream.n_documents)
    metrics = score_stream(subject.model, subject.stream, batch_size=subject.batch_size)
    return Result(metrics, subject.stream.n_documents)


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
    return Result({"parse_share": parse_share(texts)}, len(texts))


def pairs(subject: Subject) -> Result:
    """Exact match and chrF of what is written for held-out sources, the first `MOST_PAIRS` of them."""
    _, written, targets = _written("pairs", subject)
    return Result(match_figures(written, targets), len(targets))


def _written(name: str, subject: Subject) -> tuple[list[str], list[str], list[str]]:
    """The first `MOST_PAIRS` held-out sources, what is written for them, and their targets."""
    view = subject.collator().view(subject.stream, subject.model.config.context_length, subject.seed)
    if not isinstance(view, Pairs) or subject.model.config.labels:
        raise ConfigError(f"eval={name}: it is for models of pairs of texts, such as task=seq2seq trains.")
    return written_beside_targets(
        subject.model, view, subject.tokenizer, limit=MOST_PAIRS, batch_size=subject.batch_size
    )


def classification(subject: Subject) -> Result:
    """Accuracy, F1 and calibration of the labels that texts are given."""
    _with_labels("classification", subject)
    metrics, texts = score_labels(
        subject.model, subject.stream, subject.collator(), batch_size=subject.batch_size
    )
    return Result(metrics, texts)


def tagging(subject: Subject) -> Result:
    """Accuracy of the tags that words are given, and F1 of the entities that they mark; the examples are sentences."""
    _with_labels("tagging", subject)
    return Result(*score_tags(subject.model, subject.stream, subject.collator(), subject.tokenizer))


def qa(subject: Subject) -> Result:
    """Exact match and F1 of answers to questions on passages; the examples are questions."""
    _with_labels("qa", subject)
    return Result(*score_answers(subject.model, subject.stream, subject.collator(), subject.tokenizer))


def regression(subject: Subject) -> Result:
    """Squared error and correlation of the numbers that are told of texts."""
    _with_labels("regression", subject)
    metrics, texts = score_numbers(
        subject.model, subject.stream, subject.collator(), batch_size=subject.batch_size
    )
    return Result(metrics, texts)


def summarization(subject: Subject) -> Result:
    """ROUGE of what is written for held-out texts, the first `MOST_PAIRS` of them, beside that of their first lines."""
    sources, written, targets = _written("summarization", subject)
    return Result(rouge_figures(sources, written, targets), len(targets))


def _with_labels(name: str, subject: Subject) -> None:
    config = subject.model.config
    if not config.labels:
        raise ConfigError(f"eval={name}: it is for models with labels, such as task={name} trains.")
    if LABELLED[config.labelled] != name:
        raise ConfigError(
            f"eval={name}: the model's labels are others. eval={LABELLED[config.labelled]} scores it."
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
    "tagging": tagging,
    "qa": qa,
    "regression": regression,
    "summarization": summarization,
}
