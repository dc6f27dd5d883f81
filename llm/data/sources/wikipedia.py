"""Articles from the dumps of Wikipedia and other MediaWikis: pages-articles as XML, plain or in bzip2 of any kind."""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree import ElementTree

from llm.data.documents import Document, LeftOut, ReadingPlan, fingerprint
from llm.data.documents.split import DEFAULT_SHARE, check_share, choose_split, first_documents
from llm.data.files.addresses import InputFile, find_inputs, open_address
from llm.data.files.bzip2 import blocks
from llm.data.files.cutting import BLOCK_BYTES, piece_bytes
from llm.data.files.inputs import InputFiles
from llm.data.sources.records import clean_text
from llm.data.sources.wikitext import prose
from llm.errors import ConfigError

OPEN, CLOSE = b"<page>", b"</page>"
# A page is 2 MB at most; what goes on for longer is no page.
LARGEST_PAGE = 1 << 25
ARTICLES = "0"
# Files and categories, whose links are no text; the dump's head has the wiki's own names for them.
NAMELESS = ("-2", "6", "14")
HEAD_BYTES = 1 << 16
# Counts in the fingerprint: raise it when the same wikitext gives another text.
VERSION = 1


@dataclass(frozen=True)
class Wikipedia:
    """Source: the articles of pages-articles dumps (.xml or .xml.bz2), without redirects and other namespaces.

    An article begins with its title. `paths` are files, patterns or addresses of fsspec. A page that is malformed
    is left out and told in the report.
    """

    paths: str | Sequence[str]
    validation_share: float = DEFAULT_SHARE

    corpus_name = "wikipedia"

    def __post_init__(self) -> None:
        check_share(self.validation_share)

    def plan(self, files: InputFiles) -> ReadingPlan:
        """Find the dumps, read their heads, and cut them into pieces by their compressed bytes."""
        inputs = find_inputs(self.paths, files)
        total = sum(file.size or 0 for file in inputs)
        pieces = [piece for file in inputs for piece in _pieces(file, piece_bytes(total))]
        split = choose_split(first_documents(pieces), self.validation_share)
        settings = {"kind": "wikipedia", "version": VERSION, "split": split.settings()}
        return ReadingPlan(
            fingerprint(settings, (file.identity for file in inputs)), pieces, split, total or None
        )


def _pieces(file: InputFile, limit: int) -> Iterator["PagesPiece"]:
    if not file.address.endswith((".xml", ".xml.bz2")):
        raise ConfigError(f"data.paths: {file.address} is no .xml or .xml.bz2, as pages-articles dumps are.")
    names = tuple(_namespaces(file.address))
    if file.size is None:
        yield PagesPiece(file.address, names)
        return
    for start in range(0, file.size, limit):
        yield PagesPiece(file.address, names, start, start + limit)


def _namespaces(address: str) -> list[str]:
    """The lower-case names of namespaces whose links show no text, from the head of a dump."""
    head = next((chunk.data for chunk in _chunks(address, 0, HEAD_BYTES)), b"")[:HEAD_BYTES].decode(
        "utf-8", "replace"
    )
    found = re.findall(r'<namespace key="(-?\d+)"[^>]*>([^<]*)</namespace>', head)
    return [name.lower() for key, name in found if key in NAMELESS]


class Chunk(NamedTuple):
    """Some of a dump's XML; `is_own` where it belongs to the piece that is read, not to the one after it."""

    data: bytes
    is_own: bool
    place: str
    flaw: str | None = None


def _chunks(address: str, start: int, end: float) -> Iterator[Chunk]:
    """The XML from compressed or plain byte `start` on, to the end of the dump."""
    with closing(open_address(address)) as file:
        if address.endswith(".bz2"):
            for block in blocks(file, start):
                yield Chunk(block.data, block.bit < 8 * end, f"bit {block.bit}", block.flaw)
            return
        file.seek(start)
        while data := file.read(BLOCK_BYTES):
            # Never across the piece's end, which decides whose a page is.
            own = int(min(len(data), max(0, end - start)))
            for part, is_own in ((data[:own], True), (data[own:], False)):
                if part:
                    yield Chunk(part, is_own, f"byte {start}")
            start += len(data)


@dataclass(frozen=True)
class PagesPiece:
    """The pages of a dump that begin in its bytes [start, end), or in the bzip2 blocks that begin there."""

    address: str
    namespaces: tuple[str, ...]
    start: int = 0
    end: float = float("inf")

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the articles in order."""
        for page in self._pages(left_out):
            try:
                element = ElementTree.fromstring(page)
            except ElementTree.ParseError as error:
                left_out.add("bad", f"{self.address}, {_title(page)}", f"the page is malformed XML: {error}")
                continue
            if reason := _no_article(element):
                left_out.add(reason)
                continue
            title = element.findtext("title") or ""
            text = prose(element.findtext("revision/text") or "", self.namespaces)
            yield Document(title, clean_text(f"{title}\n\n{text}") if text else b"")

    def _pages(self, left_out: LeftOut) -> Iterator[bytes]:
        """The XML of each page."""
        buffer, own = bytearray(), 0
        for chunk in _chunks(self.address, self.start, self.end):
            if chunk.flaw:
                left_out.add("bad", f"{self.address}, block at {chunk.place}", chunk.flaw)
                buffer.clear()
                own = 0
            buffer += chunk.data
            own += len(chunk.data) if chunk.is_own else 0
            used = 0
            while (page := _next_page(buffer, used, own)) is not None:
                yield bytes(buffer[page])
                used = page.stop
            del buffer[:used]
            own = max(0, own - used)
            if not chunk.is_own and (not own or buffer.find(OPEN, 0, own + len(OPEN) - 1) < 0):
                return
            if len(buffer) > LARGEST_PAGE:
                left_out.add("bad", f"{self.address}, {_title(buffer)}", "the page has no end")
                buffer.clear()
                own = 0
        if own and OPEN in buffer:
            left_out.add("bad", f"{self.address}, {_title(buffer)}", "the dump ends inside this page")


def _next_page(buffer: bytearray, used: int, own: int) -> slice | None:
    """Where the next whole page stands behind `used`, if it begins among the first `own` bytes."""
    start = buffer.find(OPEN, used)
    stop = buffer.find(CLOSE, start)
    return slice(start, stop + len(CLOSE)) if used <= start < own and stop >= 0 else None


def _title(page: bytes | bytearray) -> str:
    found = re.search(rb"<title>([^<]{1,200})", page)
    return f"page {found[1].decode('utf-8', 'replace')!r}" if found else "a page without a title"


def _no_article(page: ElementTree.Element) -> str | None:
    """Why a page is no article, None where it is one."""
    if page.find("redirect") is not None:
        return "redirect"
    if page.findtext("ns", ARTICLES) != ARTICLES or page.findtext("revision/model", "wikitext") != "wikitext":
        return "no_article"
    return None
