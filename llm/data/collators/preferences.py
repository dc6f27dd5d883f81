"""Preferences: of two answers to the same, the better and the worse; samples of two rows each.

Shapes: n preferences, b batch, t time; the rows of a batch are in turn a better and a worse answer, 2b of them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from llm.data.collators.base import Batch, Given, Setting, Work
from llm.data.collators.conversations import TooLong, check_too_long
from llm.data.collators.packed import Conversation, targets_of
from llm.data.collators.pairs import padded_length
from llm.data.collators.spans import filled
from llm.data.collators.transcripts import Transcripts
from llm.data.corpus import TokenStream
from llm.data.sampling.epochs import Epochs
from llm.data.sampling.windows import IGNORED
from llm.errors import DataError

# The log-probabilities (n, 2) of better and worse answers under the model that training began with, by stream.
References = Mapping[str, np.ndarray]


class Preference(NamedTuple):
    """Both conversations, and the log-probabilities (2,) of their answers under the first model, where they are known."""

    better: Conversation
    worse: Conversation
    reference_2: np.ndarray | None


NOTHING = Conversation(np.zeros(0, np.int64), np.zeros(0, bool))


class Preferences(Epochs[Preference]):
    """A stream of preferences, each once an epoch; a side that is longer than `length` inputs is cut, or the pair left out.

    Raises:
        DataError: the documents are not preferences.
    """

    def __init__(
        self,
        stream: TokenStream,
        length: int,
        seed: int,
        *,
        end_of_text: int,
        too_long: TooLong,
        references: References,
    ) -> None:
        self.length, self.too_long, self.stream, self._references = length, too_long, stream, references
        self.transcripts = Transcripts(stream, end_of_text)
        found = self.transcripts
        if (np.bincount(found.number_m, minlength=len(found)) != 3).any():
            raise DataError("The documents of this corpus are no preferences: task=dpo prepares such.")
        prompt_n, better_n, worse_prompt_n = (found.place_m[turn::3] for turn in range(3))
        self._sides_n2 = np.stack([better_n, found.lengths - better_n], axis=1)
        self._prompts_n2 = prompts_n2 = np.stack([prompt_n, worse_prompt_n - better_n], axis=1)
        self._is_long_n = (self._sides_n2 > length + 1).any(axis=1)
        has_answers_n = (prompts_n2 < length + 1).all(axis=1)
        self.numbers = np.flatnonzero(has_answers_n & (~self._is_long_n if too_long == "drop" else True))
        super().__init__(len(self.numbers), seed)

    @property
    def lengths(self) -> np.ndarray:
        """The inputs of both sides (n, 2) of the preferences that are scored."""
        return np.minimum(self._sides_n2[self.numbers] - 1, self.length)

    @property
    def tokens(self) -> float:
        """The inputs of both sides, on average."""
        return float(self.lengths.sum(axis=1).mean())

    @property
    def targets(self) -> float:
        """The scored tokens of both sides, on average."""
        return float((self.lengths - self._prompts_n2[self.numbers] + 1).sum(axis=1).mean())

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

    def n_targets(self, numbers: np.ndarray) -> None:
        """One in each: a preference."""

    def held_out(self, numbers: np.ndarray) -> list[Preference]:
        """The preferences of these numbers (n,); -1 is one of nothing."""
        return [
            Preference(NOTHING, NOTHING, np.zeros(2)) if number < 0 else self.preference(self.numbers[number])
            for number in numbers.tolist()
        ]

    def preference(self, number: int) -> Preference:
        """A preference by its number in the stream."""
        better, worse = (
            Conversation(*(part[: self.length + 1] for part in side)) for side in self.sides(number)
        )
        known = self._references.get(self.stream.name)
        return Preference(better, worse, None if known is None else known[number])

    def sides(self, number: int) -> list[Conversation]:
        """Both conversations of a preference by its number in the stream, uncut."""
        ids, turns = self.transcripts.read(number)
        return [Conversation(ids[of], turns[of] % 2 == 1) for of in (turns < 2, turns >= 2)]


class PreferenceCollator:
    """Two rows for each preference, whose targets are the tokens of the last answers; nothing else is scored.

    Args:
        setting: the run's tokenizer, and the model, which says how long a side may be.
        too_long: what becomes of a side longer than the context: `cut` to its beginning, or `drop` for its pair.

    `references` is empty until training fills it.
    """

    given: Given = "chat"
    of_preferences = True

    marks = ("reference_b2",)

    def __init__(self, setting: Setting, *, too_long: TooLong = "cut") -> None:
        self.too_long = check_too_long(too_long)
        self.tokenizer, self.longest = setting.tokenizer, setting.shape.context_length
        self.references: dict[str, np.ndarray] = {}

    def view(self, stream: TokenStream, length: int, seed: int) -> Preferences:
        """A stream of preferences."""
        return Preferences(
            stream,
            length,
            seed,
            end_of_text=self.tokenizer.end_of_text,
            too_long=self.too_long,
            references=self.references,
        )

    def work(self, samples: Preferences) -> Work:
        """The average preference's, both sides together."""
        return Work(samples.tokens, samples.tokens, samples.targets)

    def most(self, samples: Preferences) -> Work:
        """Two rows' that fill the context."""
        return Work.full(2.0 * samples.length)

    def __call__(self, preferences: list[Preference], ids: np.ndarray) -> Batch:
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
            "ids": ids,
        }
        known = [one.reference_2 for one in preferences if one.reference_2 is not None]
        if len(known) == len(preferences):
            arrays["reference_b2"] = np.stack(known).astype(np.float32)
        return Batch.of(**arrays)


def _last_answer(conversation: Conversation) -> np.ndarray:
    """The targets of the last answer, which are the last of the conversation."""
    targets = targets_of(conversation)
    given = np.flatnonzero(targets == IGNORED)
    return targets[given[-1] + 1 if len(given) else 0 :]
