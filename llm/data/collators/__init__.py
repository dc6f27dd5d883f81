"""Samples to batches: one collator a task, each named by a file in conf/task."""

from llm.data.collators.causal import CausalCollator
from llm.data.collators.conversations import ConversationCollator
from llm.data.collators.joined import JoinedPairCollator, pair_collator
from llm.data.collators.labels import NumberCollator, TextLabelCollator
from llm.data.collators.masking import MaskingCollator
from llm.data.collators.pairs import PairCollator
from llm.data.collators.preferences import PreferenceCollator
from llm.data.collators.prefix import PrefixCollator
from llm.data.collators.questions import AnswerCollator
from llm.data.collators.spans import SpanCollator
from llm.data.collators.tags import TagCollator

__all__ = [
    "AnswerCollator",
    "CausalCollator",
    "ConversationCollator",
    "JoinedPairCollator",
    "MaskingCollator",
    "NumberCollator",
    "PairCollator",
    "PreferenceCollator",
    "PrefixCollator",
    "SpanCollator",
    "TagCollator",
    "TextLabelCollator",
    "pair_collator",
]
