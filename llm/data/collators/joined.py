"""Pairs of texts for a decoder: a source and its target as one sequence, of which the target alone is scored.

Shapes: n pairs.
"""

import numpy as np

from llm.data.collators.base import Given, Setting
from llm.data.collators.packed import Conversation, Exchange, Packed, PackedCollator
from llm.data.collators.pairs import Pair, PairCollator, Pairs
from llm.data.corpus import TokenStream
from llm.errors import ConfigError


class JoinedPairs(Packed):
    """A stream of pairs, in rows: each is its source, an end of text, its target and another end of text.

    A source takes at most `most_given` ids, its end of text counted, and is cut to its beginning; a target is cut to what that
    leaves. What a model reads of a source so depends on the source alone. Raises what `Pairs` raises.
    """

    def __init__(
        self, stream: TokenStream, length: int, seed: int, *, end_of_text: int, most_given: int
    ) -> None:
        self.pairs, self.most_given = Pairs(stream, len(stream) + 1, 0, end_of_text), most_given
        self.n_given = np.minimum(self.pairs.source_lengths, most_given)
        n_written = np.minimum(self.pairs.target_lengths, length + 1 - self.n_given)
        kept_lengths = self.n_given + n_written
        whole_lengths = self.pairs.source_lengths + self.pairs.target_lengths
        self.n_cut = int((kept_lengths < whole_lengths).sum())
        super().__init__(kept_lengths, n_written, np.arange(self.pairs.size), length, seed)

    @property
    def note(self) -> str:
        """How many pairs are cut; empty where none is."""
        return (
            f"{self.n_cut:,} of {self.n_conversations:,} pairs don't fit model.context_length={self.length} and are cut: a "
            f"source to {self.most_given:,} tokens (task.collator.source_share), a target to what is left."
            if self.n_cut
            else ""
        )

    def _cut(self, index: int) -> Pair:
        """A pair with as much of its source as is read."""
        source_s, target_k = self.pairs.pair(index)
        return Pair(np.append(source_s[: self.n_given[index] - 1], source_s[-1]), target_k)

    def conversation(self, index: int) -> Conversation:
        """A pair by its index in the stream, as far as it fits."""
        source_s, target_k = self._cut(index)
        ids_t = np.concatenate([source_s, target_k])[: self.kept_lengths[index]]
        return Conversation(ids_t, np.arange(len(ids_t)) >= len(source_s))

    def exchange(self, index: int) -> Exchange:
        """A source, as far as it is read, and its whole target."""
        return Exchange(*self._cut(index))


class JoinedPairCollator(PackedCollator):
    """A decoder reads a source up to an end of text, and writes its target, an end of text with it.

    As many pairs as fit stand in a row, and see nothing of each other.

    Args:
        setting: the run's tokenizer, and the model, which says how much fits into a row.
        source_share: how much of the context a source may take.

    Raises:
        ConfigError: that leaves nothing of a source, or of a target.
    """

    given: Given = "text"
    mixes = True

    def __init__(self, setting: Setting, *, source_share: float = 0.75) -> None:
        super().__init__(setting)
        self.most_given = int(source_share * self.longest)
        if not 2 <= self.most_given < self.longest:
            raise ConfigError(
                f"task.collator.source_share={source_share}: it must be above 0 and below 1, and leave a source two of the "
                f"model's {self.longest} tokens at least."
            )

    def samples(self, stream: TokenStream, length: int, seed: int) -> JoinedPairs:
        """A stream of pairs."""
        end = self.tokenizer.end_of_text
        return JoinedPairs(stream, length, seed, end_of_text=end, most_given=self.most_given)


def pair_collator(setting: Setting, *, source_share: float = 0.75) -> PairCollator | JoinedPairCollator:
    """What makes batches of pairs for the model: a source and a target apart, or one sequence for a decoder.

    Args:
        setting: the run's.
        source_share: how much of a decoder's context a source may take.
    """
    if setting.model_config.architecture == "decoder":
        return JoinedPairCollator(setting, source_share=source_share)
    return PairCollator(setting)
