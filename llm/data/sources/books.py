"""Books: plain text as Project Gutenberg has it, without its licence, and EPUB."""

import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import IO, BinaryIO
from urllib.parse import unquote
from xml.etree import ElementTree

from llm.data.documents import Document, LeftOut, ReadingPlan, fingerprint
from llm.data.documents.split import DEFAULT_SHARE, check_share, choose_split, first_documents
from llm.data.files.addresses import InputFile, find_inputs, open_address
from llm.data.files.cutting import piece_bytes
from llm.data.files.inputs import InputFiles
from llm.data.sources.records import clean_text, needed, versions
from llm.errors import DataError

# No book is larger; an archive that unpacks to more is a bomb.
LARGEST_BOOK = 1 << 26
BEGIN = re.compile(
    r"^\s*\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG.*?\*{3}|\*END\*? ?THE SMALL PRINT!.*?\*END\*",
    re.I | re.S | re.M,
)
END = re.compile(
    r"^\s*(?:\*{3} ?END OF (?:THE|THIS) PROJECT GUTENBERG|End of (?:the )?Project Gutenberg)", re.I | re.M
)
CREDIT = re.compile(
    r"\A\s*(?:Produced by|E-text prepared by|This e-?text was prepared by|Transcribed from)\b.*?\n\s*\n",
    re.I | re.S,
)
ENCODING = re.compile(rb"(?:^Character set encoding:\s*|<\?xml [^>]*encoding=[\"'])([\w-]+)", re.I | re.M)
NAMED_WITHIN = 10_000
CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
# Counts in the fingerprint: raise it when the same book gives another text.
VERSION = 1


@dataclass(frozen=True)
class Books:
    """Source: a book a document, from text files of any encoding and from EPUB files.

    The licence that Project Gutenberg puts around a book is left out. `paths` are files, patterns or addresses of
    fsspec. A book that can't be read is left out and told in the report.
    """

    paths: str | Sequence[str]
    validation_share: float = DEFAULT_SHARE

    corpus_name = "books"

    def __post_init__(self) -> None:
        check_share(self.validation_share)
        needed("data=books", "resiliparse")

    def plan(self, files: InputFiles) -> ReadingPlan:
        """Find the books and put small ones together."""
        inputs = find_inputs(self.paths, files)
        total = sum(file.size or 0 for file in inputs)
        pieces = list(_pieces(inputs, piece_bytes(total)))
        split = choose_split(first_documents(pieces), self.validation_share)
        settings = {
            "kind": "books",
            "version": VERSION,
            "versions": versions("resiliparse"),
            "split": split.settings(),
        }
        return ReadingPlan(
            fingerprint(settings, (file.identity for file in inputs)), pieces, split, total or None
        )


def _pieces(inputs: Sequence[InputFile], limit: int) -> Iterator["BooksPiece"]:
    waiting: list[str] = []
    size = 0
    for file in inputs:
        waiting.append(file.address)
        size += file.size or limit
        if size >= limit:
            yield BooksPiece(tuple(waiting))
            waiting, size = [], 0
    if waiting:
        yield BooksPiece(tuple(waiting))


@dataclass(frozen=True)
class BooksPiece:
    """Some books."""

    addresses: tuple[str, ...]

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the books in order."""
        for address in self.addresses:
            try:
                with closing(open_address(address)) as file:
                    text = _epub(file) if file.read(4) == b"PK\3\4" else _plain(file)
            except (
                DataError,
                OSError,
                EOFError,
                RuntimeError,
                zlib.error,
                zipfile.BadZipFile,
                KeyError,
            ) as error:
                left_out.add("bad", address, str(error))
                continue
            yield Document(address, clean_text(without_licence(text)))


def without_licence(text: str) -> str:
    """The book between the marks that Project Gutenberg sets; all of it where there are none."""
    begin = BEGIN.search(text)
    text = text[begin.end() :] if begin else text
    end = END.search(text)
    text = text[: end.start()] if end else text
    return CREDIT.sub("", text) if begin else text


def _plain(file: BinaryIO) -> str:
    """A text file.

    Raises:
        DataError: it is binary, or too large for a book.
    """
    file.seek(0)
    data = _bounded(file)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    if (nul := data.find(b"\0")) >= 0:
        raise DataError(f"byte {nul} is NUL, so this is a binary file.")
    return _decoded(data)


def _decoded(data: bytes) -> str:
    """Text in UTF-8, or else in the encoding that it names, or else in the one that it looks like."""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        named = ENCODING.search(data[:NAMED_WITHIN])
        return bytes_to_str(data, named[1].decode() if named else detect_encoding(data) or "windows-1252")


def _bounded(file: IO[bytes], limit: int = LARGEST_BOOK) -> bytes:
    data = file.read(limit + 1)
    if len(data) > limit:
        raise DataError(f"it holds more than {LARGEST_BOOK >> 20} MiB of text, which no book does.")
    return data


def _epub(file: BinaryIO) -> str:
    """The text of an EPUB's chapters in the order of its spine.

    Raises:
        DataError: it is no sound EPUB, is encrypted, or unpacks to more than any book.
    """
    from resiliparse.extract.html2text import extract_plain_text

    left, chapters = LARGEST_BOOK, []
    with zipfile.ZipFile(file) as archive:
        encrypted = _encrypted(archive)
        for name in _spine(archive):
            if name in encrypted:
                raise DataError(f"its chapter {name} is encrypted.")
            data = _member(archive, name, left)
            left -= len(data)
            chapters.append(extract_plain_text(_decoded(data), alt_texts=False))
    return "\n\n".join(chapters)


def _spine(archive: zipfile.ZipFile) -> list[str]:
    """The names of the chapters, in order."""
    container = _xml(archive, CONTAINER)
    package = next((e.get("full-path") for e in container.iter() if _is(e, "rootfile")), None)
    if package is None:
        raise DataError(f"its {CONTAINER} names no package.")
    elements = list(_xml(archive, package).iter())
    files = {e.get("id"): e.get("href", "") for e in elements if _is(e, "item")}
    order = [files.get(e.get("idref")) for e in elements if _is(e, "itemref")]
    folder = posixpath.dirname(package)
    return [posixpath.normpath(posixpath.join(folder, unquote(href))) for href in order if href]


def _encrypted(archive: zipfile.ZipFile) -> set[str]:
    if ENCRYPTION not in archive.namelist():
        return set()
    return {e.get("URI", "") for e in _xml(archive, ENCRYPTION).iter() if _is(e, "CipherReference")}


def _is(element: ElementTree.Element, name: str) -> bool:
    return element.tag.rpartition("}")[2] == name


def _xml(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    data = _member(archive, name, LARGEST_BOOK)
    if b"<!ENTITY" in data:
        raise DataError(f"its {name} defines entities, which may grow without bound.")
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise DataError(f"its {name} is malformed XML: {error}.") from error


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    with archive.open(name) as member:
        return _bounded(member, limit)
