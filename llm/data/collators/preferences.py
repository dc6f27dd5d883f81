"""Preferences: of two answers to the same, the better and the worse; samples of two rows each.

Shapes: n preferences, b batch, t time; the rows of a batch are in turn a better and a worse answer, 2b of them.
"""

import copy
from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np

from llm.data.collators.base import Batch, Given, Setting, TokenCounts
from llm.data.collators.conversations import TooLong, check_too_long
from llm.data.collators.packed import Conversation, targets_of
from llm.data.collators.pairs import padded_length
from llm.data.collators.spans import filled
from llm.data.collators.transcripts import Transcripts
from llm.data.corpus import TokenStream
from llm.data.sampling.epochs import Epochs
from llm.data.sampling.windows import IGNORED
from llm.errors import DataError

# The log-probabilities (n, 2) of better and worse answers under the reference model, by stream.
LogProbabilities = Mapping[str, np.ndarray]


class Preference(NamedTuple):
    """Both conversations, the name of the stream and its place in that; -1 for a preference of nothing."""

    better: Conversation
    worse: Conversation
    stream: str
    place: int


NO_CONVERSATION = Conversation(np.zeros(0, np.int64), np.zeros(0, bool))
NOTHING = Preference(NO_CONVERSATION, NO_CONVERSATION, "", -1)


class Preferences(Epochs[Preference]):
    """A stream of preferences, each once an epoch; a side that is longer than `length` inputs is cut, or the pair left out.

    Raises:
        DataError: the documents are not preferences.
    """

    def __init__(
        self, stream: TokenStream, length: int, seed: int, *, end_of_text: int, too_long: TooLong
    ) -> None:
        self.length, self.too_long, self.stream = length, too_long, stream
        self.transcripts = Transcripts(stream, end_of_text)
        found = self.transcripts
        if (np.bincount(found.number_m, minlength=len(found)) != 3).any():
            raise DataError("The documents of this corpus are no preferences: task=dpo prepares such.")
        prompt_n, better_n, worse_prompt_n = (found.place_m[turn::3] for turn in range(3))
        self._sides_n2 = np.stack([better_n, found.lengths - better_n], axis=1)
        self._prompts_n2 = prompts_n2 = np.stack([prompt_n, worse_prompt_n - better_n], axis=1)
        self._is_long_n = (self._sides_n2 > length + 1).any(axis=1)
        has_answers_n = (prompts_n2 < length + 1).all(axis=1)
        self.indices = np.flatnonzero(has_answers_n & (~self._is_long_n if too_long == "drop" else True))
        super().__init__(len(self.indices), seed)

    @property
    def lengths(self) -> np.ndarray:
        """The inputs of both sides (n, 2) of the preferences that are scored."""
        return np.minimum(self._sides_n2[self.indices] - 1, self.length)

    @property
    def tokens(self) -> float:
        """The inputs of both sides, on average."""
        return float(self.lengths.sum(axis=1).mean())

    @property
    def targets(self) -> float:
        """The scored tokens of both sides, on average."""
        return float((self.lengths - self._prompts_n2[self.indices] + 1).sum(axis=1).mean())

    @property
    def note(self) -> str:
        """What became of preferences that don't fit; empty where all do."""
        long, left_out = int(self._is_long_n.sum()), len(self.transcripts) - self.size
        if not long:
            return ""
        return (
            f"{long:,} of {len(self.transcripts):,} preferences have a side longer than "
            f"model.context_length={self.length}; {left_out:,} are left out, the others cut to it."
        )

    def n_targets(self, indices: np.ndarray) -> None:
        """One in each: a preference."""

    def in_order(self, indices: np.ndarray) -> list[Preference]:
        """The preferences of these indices (n,); -1 is one of nothing."""
        return [
            NOTHING if index < 0 else self.preference(int(self.indices[index])) for index in indices.tolist()
        ]

    def preference(self, index: int) -> Preference:
        """A preference by its index in the stream."""
        better, worse = (
            Conversation(*(part[: self.length + 1] for part in side)) for side in self.sides(index)
        )
        return Preference(better, worse, self.stream.name, index)

    def sides(self, index: int) -> list[Conversation]:
        """Both conversations of a preference by its index in the stream, uncut."""
        ids, turns = self.transcripts.read(index)
        return [Conversation(ids[of], turns[of] % 2 == 1) for of in (turns < 2, turns >= 2)]


class PreferenceCollator:
    """Two rows for each preference, whose targets are the tokens of the last answers; nothing else is scored.

    Args:
        setting: the run's tokenizer, and the model, which says how long a side may be.
        too_long: what becomes of a side longer than the context: `cut` to its beginning, or `drop` for its pair.
    """

    given: Given = "chat"
    of_preferences = True

    extra_fields = ("reference_b2",)

    def __init__(self, setting: Setting, *, too_long: TooLong = "cut") -> None:
        self.too_long = check_too_long(too_long)
        self.tokenizer, self.longest = setting.tokenizer, setting.model_config.context_length
        self.log_probabilities: LogProbabilities = {}

    def with_reference(self, log_probabilities: LogProbabilities) -> Self:
        """The collator that also tells what the reference model says: log-probabilities (n, 2) of each stream's answers."""
        made = copy.copy(self)
        made.log_probabilities = log_probabilities
        return made

    def samples(self, stream: TokenStream, length: int, seed: int) -> Preferences:
        """A stream of preferences."""
        end = self.tokenizer.end_of_text
        return Preferences(stream, length, seed, end_of_text=end, too_long=self.too_long)

    def mean_tokens(self, view: Preferences) -> TokenCounts:
        """The average preference's, both sides together."""
        return TokenCounts(view.tokens, view.tokens, view.targets)

    def longest_tokens(self, view: Preferences) -> TokenCounts:
        """Two rows' that fill the context."""
        return TokenCounts.full(2.0 * view.length)

    def __call__(self, preferences: list[Preference], indices_b: np.ndarray) -> Batch:
        """The batch of preferences, padded to the longest side; padding stands behind what a decoder sees."""
        rows = [side for one in preferences for side in (one.better, one.worse)]
        inputs = [row.ids_t[:-1] for row in rows]
        answers = [_last_answer(row) for row in rows]
        answered = padded_length(answers, self.longest)
        places = [
            len(read) - len(answer) + np.arange(len(answer))
            for read, answer in zip(inputs, answers, strict=True)
        ]
        arrays = {
            "tokens_bt": filled(inputs, padded_length(inputs, self.longest), self.tokenizer.end_of_text),
            "targets_bk": filled(answers, answered, IGNORED),
            "positions_bk": filled(places, answered, 0),
            "indices_b": indices_b,
        }
        if self.log_probabilities:
            arrays["reference_b2"] = np.stack([self._reference(one) for one in preferences])
        return Batch.of(**arrays)

    def _reference(self, one: Preference) -> np.ndarray:
        """The log-probabilities (2,) of its answers under the reference model; 0 of nothing."""
        known = np.zeros(2) if one.place < 0 else self.log_probabilities[one.stream][one.place]
        return known.astype(np.float32)


def _last_answer(conversation: Conversation) -> np.ndarray:
    """The targets of the last answer, which are the last of the conversation."""
    targets = targets_of(conversation)
    given = np.flatnonzero(targets == IGNORED)
    return targets[given[-1] + 1 if len(given) else 0 :]
