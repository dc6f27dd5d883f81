"""Which labels tell a sentiment, and how good or bad each is."""

import re
from collections.abc import Mapping, Sequence

_RANKS = {
    "very negative": -2, "negative": -1, "neg": -1, "bad": -1,
    "neutral": 0, "neu": 0, "mixed": 0,
    "positive": 1, "pos": 1, "good": 1, "very positive": 2,
}  # fmt: skip
_NUMBER = re.compile(r"(-?\d{1,3})(?: stars?)?")


def polarities(labels: Sequence[str]) -> dict[str, float] | None:
    """How good each label is, from -1 to 1; None where they tell no sentiment.

    Words (negative, very positive, …) are symmetric around neutral; numbers and stars are spread evenly, from the least
    of them to the greatest.
    """
    names = [label.casefold().replace("_", " ").strip() for label in labels]
    if all(name in _RANKS for name in names):
        ranks = [float(_RANKS[name]) for name in names]
        centre, reach = 0.0, max(map(abs, ranks), default=0.0)
    elif matches := [match for name in names if (match := _NUMBER.fullmatch(name))]:
        if len(matches) < len(names):
            return None
        ranks = [float(match[1]) for match in matches]
        centre, reach = (min(ranks) + max(ranks)) / 2, (max(ranks) - min(ranks)) / 2
    else:
        return None
    if not min(ranks, default=0) < centre < max(ranks, default=0):
        return None
    return {label: (rank - centre) / reach for label, rank in zip(labels, ranks, strict=True)}


def score(probabilities: Mapping[str, float], polarity: Mapping[str, float]) -> float:
    """How good a text is, from -1 to 1: what its labels are worth, each as likely as it is."""
    return sum(probability * polarity[label] for label, probability in probabilities.items())
