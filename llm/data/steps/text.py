"""Steps that change text: broken encodings mended, and normalisations, which modern models do without."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from llm.data.steps.base import Result, TextStep

# What ftfy can mend in ASCII: entities and what a terminal would act on.
SUSPECT = re.compile(r"&[#\w]+;|[\x00-\x08\x0b-\x1f\x7f]")
TYPOGRAPHY = str.maketrans(
    {"‘": "'", "’": "'", "‚": "'", "‛": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"'}
    | {"–": "-", "—": "-", "−": "-", "‐": "-", "‑": "-", "…": "...", "\u00a0": " ", "\u202f": " "}
)


@dataclass(frozen=True)
class FixText(TextStep):
    """Mends mojibake, stray entities and control characters by ftfy (Speer, 2019); quotes and widths stay as they are."""

    libraries = ("ftfy",)

    def __call__(self, text: str) -> Result:
        """The mended text."""
        if text.isascii() and not SUSPECT.search(text):
            return Result(text)
        return Result(_ftfy().fix_text(text, _options()))


@cache
def _ftfy() -> Any:
    import ftfy

    return ftfy


@cache
def _options() -> Any:
    return _ftfy().TextFixerConfig(
        uncurl_quotes=False, fix_character_width=False, fix_latin_ligatures=False, explain=False
    )


@dataclass(frozen=True)
class LowerCase(TextStep):
    """Lower case throughout."""

    def __call__(self, text: str) -> Result:
        """The text in lower case."""
        return Result(text.lower())


@dataclass(frozen=True)
class PlainPunctuation(TextStep):
    """Typographic quotes, dashes, ellipses and narrow spaces as ASCII has them."""

    def __call__(self, text: str) -> Result:
        """The text with plain punctuation."""
        return Result(text.translate(TYPOGRAPHY))


@dataclass(frozen=True)
class NoSpecialCharacters(TextStep):
    """Without control, format, private and unassigned characters, in a normal form of Unicode."""

    form: Literal["NFC", "NFKC", "NFD", "NFKD"] = "NFC"

    def __call__(self, text: str) -> Result:
        """The text without them; tabs and line ends stay."""
        text = unicodedata.normalize(self.form, text)
        special = {c for c in set(text) if unicodedata.category(c)[0] == "C" and c not in "\n\t"}
        return Result(text.translate({ord(c): None for c in special}) if special else text)
