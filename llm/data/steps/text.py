"""Steps that change text: broken encodings mended, and normalisations, which modern models do without."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from llm.data.steps.base import Result, TextStep

# What ftfy may mend: other characters than those of ASCII, and of those entities and what a terminal would act on.
SUSPECT = re.compile(r"[^\x00-\x7f]|&[#\w]+;|[\x00-\x08\x0b-\x1f\x7f]")
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
        return Result("".join(_mended(text)))


def _mended(text: str) -> Iterator[str]:
    """The text in stretches, as ftfy mends it line by line; it is asked for the lines alone that it may mend."""
    at, markup = 0, text.find("<")
    while found := SUSPECT.search(text, at):
        start = text.rfind("\n", at, found.start()) + 1 or at
        end = text.find("\n", found.start()) + 1 or len(text)
        yield text[at:start]
        # Behind a tag ftfy takes entities for markup, which stays.
        yield _ftfy().fix_text(text[start:end], _options(entities=not 0 <= markup < start))
        at = end
    yield text[at:]


@cache
def _ftfy() -> Any:
    import ftfy

    return ftfy


@cache
def _options(entities: bool) -> Any:
    return _ftfy().TextFixerConfig(
        unescape_html="auto" if entities else False,
        uncurl_quotes=False,
        fix_character_width=False,
        fix_latin_ligatures=False,
        explain=False,
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
