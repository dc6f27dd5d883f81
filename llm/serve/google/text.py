"""A document's plain text, its sentences, and where they stand in what was sent."""

import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

from llm.serve.google.schema import Document, DocumentType, EncodingType

# Only a mark's first character may begin a match, so that a million of them are read once.
_END_OF_SENTENCE = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s)|[。！？]++[”’」』）]*+|\n\s*\n")
# Python's own parser of HTML takes time by the square of what is malformed; here whatever doesn't end goes on to the end.
_MARK = re.compile(
    r"""
      <!--.*?(?:-->|\Z)
    | <(?P<silent>script|style|title|template|noscript)\b.*?(?:</(?P=silent)\s*+>|\Z)
    | </?(?P<tag>[a-z][^\s/>]*+)(?:[^>"']++|"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))*+(?:>|\Z)
    | <[!?/][^>]*+(?:>|\Z)
    | (?P<reference>&(?:\#\d{1,7}|\#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_WITHIN_A_SENTENCE = {
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img", "ins", "kbd", "label",
    "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "u", "var", "wbr",
}  # fmt: skip
_UNITS: dict[EncodingType, Callable[[str], int]] = {
    EncodingType.UTF8: lambda text: len(text.encode()),
    EncodingType.UTF16: lambda text: len(text.encode("utf-16-le")) // 2,
    EncodingType.UTF32: len,
}


@dataclass(frozen=True)
class Sentence:
    """A sentence, and the character of the plain text that it begins with."""

    text: str
    start: int


@dataclass(frozen=True)
class PlainText:
    """The text of a document; `origins` says which character of `source` each of its characters comes from."""

    source: str
    text: str
    origins: Sequence[int]

    @classmethod
    def of(cls, document: Document) -> "PlainText":
        """What a reader sees of `document`."""
        source = document.content or ""
        if document.type == DocumentType.HTML:
            texts, origins = zip(*_read_html(source), strict=True)
            return cls(source, "".join(texts), list(chain.from_iterable(origins)))
        return cls(source, source, range(len(source)))

    def sentences(self) -> list[Sentence]:
        """The sentences: up to ., !, ? or … before a space, or 。, or an empty line."""
        return list(_sentences(self.text))

    def offsets(self, places: Sequence[int], encoding: EncodingType) -> list[int]:
        """Where the characters at `places`, in their order, stand in what was sent, in the client's units.

        They are -1 where it named none.
        """
        if encoding == EncodingType.NONE:
            return [-1] * len(places)
        starts = [self.origins[place] for place in places]
        between = (self.source[a:b] for a, b in zip([0, *starts], starts, strict=False))
        return list(accumulate(map(_UNITS[encoding], between)))


def _sentences(text: str) -> Iterator[Sentence]:
    begin = 0
    for end in [*(match.end() for match in _END_OF_SENTENCE.finditer(text)), len(text)]:
        piece = text[begin:end]
        if told := piece.strip():
            yield Sentence(told, begin + len(piece) - len(piece.lstrip()))
        begin = end


def _read_html(source: str) -> Iterator[tuple[str, Sequence[int]]]:
    """The pieces of text between marks, with their origins; an empty line where a block begins or ends."""
    end = 0
    for mark in _MARK.finditer(source):
        yield source[end : mark.start()], range(end, mark.start())
        text = _shown(mark)
        yield text, [mark.start()] * len(text)
        end = mark.end()
    yield source[end:], range(end, len(source))


def _shown(mark: re.Match[str]) -> str:
    """What a mark adds to the text."""
    if mark["reference"]:
        return html.unescape(mark[0])
    tag = mark["tag"]
    return "" if tag is None or tag.casefold() in _WITHIN_A_SENTENCE else "\n\n"
