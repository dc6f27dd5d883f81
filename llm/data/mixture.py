"""Several corpora as one: each training sample is of one of them, in exact shares, whatever was drawn before.

Shapes: n samples, t time.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from llm.data.collators.base import Collator
from llm.data.corpus import Corpus, TokenStream
from llm.data.documents import fingerprint
from llm.data.sampling.turns import Turns
from llm.data.sampling.view import SampleView, WeightedView
from llm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from llm.tokenizer import Tokenizer

# Counts in the fingerprint: raise it when the same shares give another sequence.
VERSION = 2


class AnyCorpus(Protocol):
    """What is trained on and scored: a corpus, or several of one tokenizer as a mixture."""

    name: str
    tokenizer_hash: str
    vocab_size: int

    @property
    def train(self) -> "AnyStream":
        """What is trained on."""

    @property
    def validation(self) -> "AnyStream":
        """What is held out."""

    @property
    def corpora(self) -> Mapping[str, Corpus]:
        """The corpora that it is made of, by name."""

    @property
    def fingerprint(self) -> str:
        """What decides the samples, but for the context length and the seed."""

    @property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer that it was made with."""

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text per token."""

    def require_tokenizer(self, tokenizer_hash: str) -> None:
        """Raise DataError unless it was made with the tokenizer of this hash."""

    def record(self) -> dict[str, Any]:
        """What `open_text` opens it by again."""
        ...


@dataclass(frozen=True)
class SourceShare:
    """How much of training a source gets: its weight beside the others', and for how many passes over it at most."""

    weight: float = 1.0
    epochs: float | None = None

    def __post_init__(self) -> None:
        if not (self.weight > 0 and math.isfinite(self.weight)):
            raise ConfigError(f"weight={self.weight} must be above 0 and finite.")
        if self.epochs is not None and not (self.epochs > 0 and math.isfinite(self.epochs)):
            raise ConfigError(f"epochs={self.epochs} must be above 0 and finite; null is for no limit.")


class Phase:
    """Samples from `start` on, shared out among some sources by fixed weights; `before` are those of each before it.

    After any number of samples each source is less than one sample away from its share of them (see `Turns`).
    """

    def __init__(self, start: int, sources: list[int], weights: list[float], before: np.ndarray) -> None:
        self.start, self.before = start, before
        self._sources, self._turns = np.array(sources), Turns(weights)

    def place(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source (n,) of the samples of these indices (n,), and which of that source's own each is (n,)."""
        turns, own = self._turns.place(indices - self.start)
        source = self._sources[turns]
        return source, own + self.before[source]

    def counts(self, n: int) -> np.ndarray:
        """How many samples of each source there are before sample `n`, earlier phases included."""
        counts = self.before.copy()
        counts[self._sources] += self._turns.counts(n - self.start)
        return counts

    def end(self, source: int, limit: int) -> int:
        """The index of the first sample before which `source` has had `limit` samples."""
        turn = int(np.flatnonzero(self._sources == source)[0])
        return self.start + self._turns.find(turn, limit - int(self.before[source]) - 1) + 1


class Interleaving:
    """Which source each sample of an endless sequence is of.

    Args:
        weights: of each source, above 0; they need not add up to anything.
        limits: how many samples of each there are at most; None for no end. Where a source ends, the others share
            what would have been its part by their weights.
    """

    def __init__(self, weights: list[float], limits: list[int | None]) -> None:
        self.phases: list[Phase] = []
        start, before = 0, np.zeros(len(weights), np.int64)
        active = list(range(len(weights)))
        self.length: int | None = None
        while active:
            phase = Phase(start, active, [weights[at] for at in active], before)
            self.phases.append(phase)
            ending = [at for at in active if limits[at] is not None]
            if not ending:
                return
            start = min(phase.end(at, limits[at] or 0) for at in ending)
            before = phase.counts(start)
            active = [at for at in active if limits[at] is None or before[at] < limits[at]]
        self.length = start

    def place(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source (n,) of the samples of these indices (n,), and which of that source's own each is (n,)."""
        starts = [phase.start for phase in self.phases]
        phases = np.searchsorted(starts, indices, side="right") - 1
        if phases[0] == phases[-1] and (phases == phases[0]).all():
            return self.phases[phases[0]].place(indices)
        sources, own = np.empty_like(indices), np.empty_like(indices)
        for at in np.unique(phases):
            here = phases == at
            sources[here], own[here] = self.phases[at].place(indices[here])
        return sources, own


class MixedView(SampleView):
    """The samples of several streams as one sequence; in order they stand one stream after the other."""

    def __init__(self, views: Mapping[str, SampleView], shares: Mapping[str, SourceShare]) -> None:
        self.source_names, self.views = list(views), list(views.values())
        self._weights = [share.weight for share in shares.values()]
        limits = [
            None if share.epochs is None else max(1, round(share.epochs * view.size))
            for share, view in zip(shares.values(), self.views, strict=True)
        ]
        self.order = Interleaving(self._weights, limits)
        self.end = self.order.length
        self._ends = np.cumsum([view.n_in_order for view in self.views])

    @property
    def weighted_views(self) -> list[WeightedView]:
        """The view of each stream, with its weight."""
        return [WeightedView(view, weight) for view, weight in zip(self.views, self._weights, strict=True)]

    @property
    def size(self) -> int:
        """As many samples as all streams have; where each has `epochs`, as many as there are in all.

        Raises:
            DataError: a stream is shorter than one sample.
        """
        for name, view in zip(self.source_names, self.views, strict=True):
            if not view.size:
                raise DataError(
                    f"data.sources.{name}: its training text is shorter than one window of model.context_length and "
                    "its next token: add text, shorten the context, or leave it out."
                )
        return self.end or sum(view.size for view in self.views)

    def target_bytes(self, tokenizer: "Tokenizer") -> float | None:
        """The UTF-8 bytes of a sample's scored tokens, on average by the weights; None where a stream's are not known."""
        known = [view.target_bytes(tokenizer) for view in self.views]
        each = [n_bytes for n_bytes in known if n_bytes is not None]
        return float(np.average(each, weights=self._weights)) if len(each) == len(known) else None

    @property
    def note(self) -> str:
        """What became of that which is longer than the context, of all streams."""
        return " ".join(view.note for view in self.views if view.note)

    @property
    def n_in_order(self) -> int:
        """The samples of all streams, each once."""
        return int(self._ends[-1])

    def n_targets(self, indices: np.ndarray) -> np.ndarray | None:
        """The targets (n,) of training samples; None where all have as many, as windows do."""
        return self._gathered(*self.place(indices), lambda view, own: view.n_targets(own))

    def training(self, indices: np.ndarray) -> Any:
        """The windows (n, t + 1) or pairs of training samples (n,)."""
        return self._gathered(*self.place(indices), lambda view, own: view.training(own))

    def in_order(self, indices: np.ndarray) -> Any:
        """The windows (n, t + 1) or pairs of these indices (n,), one stream after the other; -1 asks for one of nothing."""
        sources, own = self.place_in_order(indices)
        return self._gathered(sources, own, lambda view, own: view.in_order(own))

    def place(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of training samples (n,) the index of the source (n,), and which of that source's own each is (n,)."""
        return self.order.place(indices)

    def place_in_order(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `place`, of samples one stream after the other; -1 stays -1."""
        sources = np.searchsorted(self._ends, indices, side="right")
        begins = np.concatenate([[0], self._ends[:-1]])[sources]
        return sources, np.where(indices < 0, -1, indices - begins)

    def _gathered(
        self, sources: np.ndarray, own: np.ndarray, read: Callable[[SampleView, np.ndarray], Any]
    ) -> Any:
        """What `read` gives of each stream, in the order of the samples: rows of an array, a list, or nothing."""
        parts = {at: read(self.views[at], own[sources == at]) for at in np.unique(sources)}
        first = next(iter(parts.values()))
        if len(parts) == 1 or first is None:
            return first
        if isinstance(first, list):
            each = {at: iter(part) for at, part in parts.items()}
            return [next(each[at]) for at in sources.tolist()]
        rows = np.empty((len(sources), *first.shape[1:]), first.dtype)
        for at, part in parts.items():
            rows[sources == at] = part
        return rows


class MixedStream:
    """The streams of several corpora, by name."""

    def __init__(self, streams: Mapping[str, TokenStream], shares: Mapping[str, SourceShare]) -> None:
        self.streams, self.shares = streams, shares

    def __len__(self) -> int:
        return sum(len(stream) for stream in self.streams.values())


# The tokens of a corpus, or of several.
AnyStream = TokenStream | MixedStream


def samples_of(collate: Collator, stream: AnyStream, length: int, seed: int) -> SampleView:
    """A corpus's stream, or a mixture's, as the collator's samples of at most `length` tokens; `seed` decides their order.

    Raises:
        ConfigError: the collator gives something else.
    """
    if isinstance(stream, MixedStream):
        views = {name: samples_of(collate, one, length, seed) for name, one in stream.streams.items()}
        return MixedView(views, stream.shares)
    view = collate.samples(stream, length, seed)
    if not isinstance(view, SampleView):
        raise ConfigError(
            f"task.collator: the samples of {type(collate).__name__} are {type(view).__name__}, which isn't made from "
            "llm.data.sampling.view.SampleView: derive it from that class."
        )
    return view


class Mixture:
    """Corpora of one tokenizer, each with its share of training; to those who train on it as one corpus.

    Raises:
        DataError: corpora of different tokenizers.
    """

    name = "mixture"

    def __init__(self, corpora: Mapping[str, Corpus], shares: Mapping[str, SourceShare]) -> None:
        self.corpora, self.shares = corpora, shares
        first = next(iter(corpora.values()))
        self.tokenizer_hash, self.vocab_size = first.tokenizer_hash, first.vocab_size
        self.require_tokenizer(self.tokenizer_hash)
        self.train = MixedStream({name: corpus.train for name, corpus in corpora.items()}, shares)
        self.validation = MixedStream({name: corpus.validation for name, corpus in corpora.items()}, shares)

    @property
    def fingerprint(self) -> str:
        """What decides which text each sample is of: the corpora and their shares."""
        parts = {
            name: {"corpus": corpus.fingerprint, **vars(self.shares[name])}
            for name, corpus in self.corpora.items()
        }
        return fingerprint({"mixed": VERSION, "parts": parts})

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer of all."""
        return next(iter(self.corpora.values())).tokenizer

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text per token of training."""
        total = sum(share.weight for share in self.shares.values())
        return sum(
            self.shares[name].weight / total * corpus.bytes_per_token for name, corpus in self.corpora.items()
        )

    def require_tokenizer(self, tokenizer_hash: str) -> None:
        """Raise DataError unless the corpora were made with the tokenizer of this hash."""
        for corpus in self.corpora.values():
            corpus.require_tokenizer(tokenizer_hash)

    def record(self) -> dict[str, Any]:
        """What `open_text` makes the mixture of again."""
        parts = {
            name: {"folder": str(corpus.folder.resolve()), **vars(self.shares[name])}
            for name, corpus in self.corpora.items()
        }
        return {"name": self.name, "bytes_per_token": self.bytes_per_token, "parts": parts}


def open_text(record: Mapping[str, Any]) -> AnyCorpus:
    """The corpus or the mixture that has this `record`.

    Raises:
        DataError: a corpus is gone, or damaged.
    """
    if "parts" not in record:
        return Corpus.open(str(record.get("folder")))
    parts = record["parts"]
    return Mixture(
        {name: Corpus.open(part["folder"]) for name, part in parts.items()},
        {name: SourceShare(part["weight"], part["epochs"]) for name, part in parts.items()},
    )


@dataclass(frozen=True)
class Mixed:
    """What data=mixture names (configs of runs do too): its text is that of `data.sources`, in a `Mixture`."""
