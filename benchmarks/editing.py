"""Copies of texts with some of their words changed, as near duplicates are made to be found again."""

import random
import re


def edited(text: str, share: float, draw: random.Random, vocabulary: list[str]) -> str:
    """The text with a share of its words replaced, left out or followed by another."""
    found = []
    for word in re.findall(r"\S+\s*", text):
        if draw.random() >= share:
            found.append(word)
        else:
            new = draw.choice(vocabulary)
            found += draw.choice([[new], [], [word, new]])
    return "".join(found)
