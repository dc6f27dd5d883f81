"""Numbers with bounds, as keys of the config have them: help shows their kind, and what lies outside is refused by key and value."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

MOST_SAMPLE_BYTES = 1 << 27  # of text that a tokenizer learns from: no more of a corpus is read for it

Count = Annotated[int, Gt(0)]
Whole = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]  # a part of a whole; none and all of it are parts
PositiveShare = Annotated[float, Gt(0), Le(1)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
# A score that is divided by it, or multiplied with it, is far from where float32 overflows.
LEAST_PENALTY, MOST_PENALTY = 1e-6, 1e6
RepetitionPenalty = Annotated[float, Ge(LEAST_PENALTY), Le(MOST_PENALTY)]
