"""Several corpora as one: each training sample is of one of them, in exact shares, whatever was drawn before.

Shapes: n samples, t time.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from llm.data.collators.base import Samples
from llm.data.collators.joined import JoinedPairCollator
from llm.data.collators.pairs import PairCollator
from llm.data.corpus import Corpus, TokenStream
from llm.data.documents import fingerprint
from llm.data.sampling.turns import Turns
from llm.data.sampling.windows import Windows
from llm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from llm.tokenizer import Tokenizer

# Counts in the fingerprint: raise it when the same shares give another sequence.
VERSION = 2


@dataclass(frozen=True)
class Portion:
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

    def place(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source (n,) of the samples of these numbers (n,), and which of that source's own each is (n,)."""
        turns, own = self._turns.place(numbers - self.start)
        source = self._sources[turns]
        return source, own + self.before[source]

    def counts(self, n: int) -> np.ndarray:
        """How many samples of each source there are before sample `n`, earlier phases included."""
        counts = self.before.copy()
        counts[self._sources] += self._turns.counts(n - self.start)
        return counts

    def end(self, source: int, limit: int) -> int:
        """The first sample number before which `source` has had `limit` samples."""
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

    def place(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source (n,) of the samples of these numbers (n,), and which of that source's own each is (n,)."""
        starts = [phase.start for phase in self.phases]
        phases = np.searchsorted(starts, numbers, side="right") - 1
        if phases[0] == phases[-1] and (phases == phases[0]).all():
            return self.phases[phases[0]].place(numbers)
        sources, own = np.empty_like(numbers), np.empty_like(numbers)
        for at in np.unique(phases):
            here = phases == at
            sources[here], own[here] = self.phases[at].place(numbers[here])
        return sources, own


class MixedSamples:
    """The samples of several streams as one sequence; those for scoring stand one stream after the other."""

    def __init__(self, views: Mapping[str, Samples], shares: Mapping[str, Portion]) -> None:
        self.names, self.views = list(views), list(views.values())
        limits = [
            None if share.epochs is None else max(1, round(share.epochs * view.size))
            for share, view in zip(shares.values(), self.views, strict=True)
        ]
        self.order = Interleaving([share.weight for share in shares.values()], limits)
        self._held_out_ends = np.cumsum([view.n_held_out for view in self.views])
        self._weights = np.array([share.weight for share in shares.values()])

    def _mean(self, name: str) -> float:
        """A figure of the streams, by their weights."""
        return float(self._weights @ [getattr(view, name) for view in self.views] / self._weights.sum())

    @property
    def length(self) -> float:
        """The inputs of a window."""
        return self._mean("length")

    @property
    def tokens(self) -> float:
        """The tokens of a sample, on average."""
        return self._mean("tokens")

    @property
    def read(self) -> float:
        """Of pairs, the tokens of a source, on average."""
        return self._mean("read")

    @property
    def written(self) -> float:
        """Of pairs, the tokens of a target, on average."""
        return self._mean("written")

    @property
    def targets(self) -> float:
        """Of pairs in rows, the scored tokens of a row, on average."""
        return self._mean("targets")

    @property
    def most_read(self) -> int:
        """Of pairs, the tokens of the longest source."""
        return max(view.most_read for view in self.views)  # type: ignore[attr-defined]

    @property
    def most_written(self) -> int:
        """Of pairs, the tokens of the longest target."""
        return max(view.most_written for view in self.views)  # type: ignore[attr-defined]

    @property
    def size(self) -> int:
        """As many samples as all streams have; where each has `epochs`, as many as there are in all.

        Raises:
            DataError: a stream is shorter than one sample.
        """
        for name, view in zip(self.names, self.views, strict=True):
            if not view.size:
                raise DataError(
                    f"data.sources.{name}: its training text is shorter than one window of model.context_length and "
                    "its next token: add text, shorten the context, or leave it out."
                )
        return self.order.length or sum(view.size for view in self.views)

    def require(self, samples: int) -> None:
        """Raise ConfigError unless there are so many samples before the last source has had its epochs."""
        if self.order.length is not None and samples > self.order.length:
            raise ConfigError(
                f"Every source of the mixture has epochs, which are over after {self.order.length:,} samples, and "
                f"trainer.max_steps times data.batch_size wants {samples:,}: leave one source without epochs."
            )

    @property
    def note(self) -> str:
        """What became of that which is longer than the context, of all streams."""
        return " ".join(view.note for view in self.views if view.note)

    @property
    def n_held_out(self) -> int:
        """Samples for scoring of all streams."""
        return int(self._held_out_ends[-1])

    def n_targets(self, numbers: np.ndarray) -> np.ndarray | None:
        """The targets (n,) of training samples; None where all have as many, as windows do."""
        return self._gathered(*self.order.place(numbers), lambda view, own: view.n_targets(own))

    def training(self, numbers: np.ndarray) -> Any:
        """The windows (n, t + 1) or pairs of training samples (n,)."""
        return self._gathered(*self.order.place(numbers), lambda view, own: view.training(own))

    def held_out(self, numbers: np.ndarray) -> Any:
        """The windows (n, t + 1) or pairs for scoring of these numbers (n,); -1 asks for one of nothing."""
        sources, own = self.held_out_places(numbers)
        return self._gathered(sources, own, lambda view, own: view.held_out(own))

    def held_out_places(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source (n,) of samples for scoring, and which of that source's own each is (n,), -1 of nothing."""
        sources = np.searchsorted(self._held_out_ends, numbers, side="right")
        begins = np.concatenate([[0], self._held_out_ends[:-1]])[sources]
        return sources, np.where(numbers < 0, -1, numbers - begins)

    def _gathered(
        self, sources: np.ndarray, own: np.ndarray, read: Callable[[Samples, np.ndarray], Any]
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

    def __init__(self, streams: Mapping[str, TokenStream], shares: Mapping[str, Portion]) -> None:
        self.streams, self.shares = streams, shares

    def __len__(self) -> int:
        return sum(len(stream) for stream in self.streams.values())

    def cut(self, view: Callable[[TokenStream, int, int], Samples], length: int, seed: int) -> MixedSamples:
        """The streams as samples of at most `length` tokens.

        Raises:
            ConfigError: the task is neither one of plain text nor one of pairs.
        """
        pairs = (PairCollator.view, JoinedPairCollator.view)
        if view is not Windows and getattr(view, "__func__", None) not in pairs:
            raise ConfigError("data=mixture mixes plain text, or pairs of texts; this task wants other data.")
        return MixedSamples(
            {name: stream.cut(view, length, seed) for name, stream in self.streams.items()}, self.shares
        )


class Mixture:
    """Corpora of one tokenizer, each with its share of training; to those who train on it as one corpus.

    Raises:
        DataError: corpora of different tokenizers.
    """

    name = "mixture"

    def __init__(self, parts: Mapping[str, Corpus], shares: Mapping[str, Portion]) -> None:
        self.parts, self.shares = parts, shares
        first = next(iter(parts.values()))
        self.tokenizer_hash, self.vocab_size = first.tokenizer_hash, first.vocab_size
        self.require_tokenizer(self.tokenizer_hash)
        self.train = MixedStream({name: corpus.train for name, corpus in parts.items()}, shares)
        self.validation = MixedStream({name: corpus.validation for name, corpus in parts.items()}, shares)

    @property
    def fingerprint(self) -> str:
        """What decides which text each sample is of: the corpora and their shares."""
        parts = {
            name: {"corpus": corpus.fingerprint, **vars(self.shares[name])}
            for name, corpus in self.parts.items()
        }
        return fingerprint({"mixed": VERSION, "parts": parts})

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer of all."""
        return next(iter(self.parts.values())).tokenizer

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text per token of training."""
        total = sum(share.weight for share in self.shares.values())
        return sum(
            self.shares[name].weight / total * corpus.bytes_per_token for name, corpus in self.parts.items()
        )

    def require_tokenizer(self, tokenizer_hash: str) -> None:
        """Raise DataError unless the corpora were made with the tokenizer of this hash."""
        for corpus in self.parts.values():
            corpus.require_tokenizer(tokenizer_hash)

    def record(self) -> dict[str, Any]:
        """What `open_text` makes the mixture of again."""
        parts = {
            name: {"folder": str(corpus.folder.resolve()), **vars(self.shares[name])}
            for name, corpus in self.parts.items()
        }
        return {"name": self.name, "bytes_per_token": self.bytes_per_token, "parts": parts}


def open_text(record: Mapping[str, Any]) -> Corpus | Mixture:
    """The corpus or the mixture that has this `record`.

    Raises:
        DataError: a corpus is gone, or damaged.
    """
    if "parts" not in record:
        return Corpus.open(str(record.get("folder")))
    parts = record["parts"]
    return Mixture(
        {name: Corpus.open(part["folder"]) for name, part in parts.items()},
        {name: Portion(part["weight"], part["epochs"]) for name, part in parts.items()},
    )


@dataclass(frozen=True)
class Mixed:
    """What data=mixture names: its text is that of `data.sources`."""
