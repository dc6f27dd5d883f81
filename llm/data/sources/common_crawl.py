"""Web pages from WARC and WET archives, as Common Crawl publishes them; read by FastWARC, extracted by Resiliparse."""

import re
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

from llm.data.documents import Document, LeftOut, ReadingPlan, fingerprint
from llm.data.documents.split import DEFAULT_SHARE, check_share, choose_split, first_documents
from llm.data.files.addresses import InputFile, find_inputs, open_address
from llm.data.files.cutting import piece_bytes
from llm.data.files.inputs import InputFiles
from llm.data.sources.records import clean_text, needed, versions
from llm.errors import ConfigError

BASE = "https://data.commoncrawl.org/"
HTML = ("text/html", "application/xhtml+xml")
LARGEST_PAGE = 1 << 24
GZIP = b"\x1f\x8b\x08"
CHUNK = re.compile(rb"[0-9a-fA-F]+(?:;[^\r\n]*)?\r\n")
START = re.compile(rb"\x1f\x8b\x08|WARC/\d\.\d\r?\nWARC-")
LOOK_BYTES = 1 << 20
# The start of a member that is long enough to tell whether a record begins in it.
HEAD_BYTES = 1 << 10
LIBRARIES = ("fastwarc", "resiliparse")


@dataclass(frozen=True)
class CommonCrawl:
    """Source: the HTML responses of WARC files, or the texts of WET files; a document a page.

    `paths` are files, patterns, addresses of fsspec, or lists of them (`warc.paths.gz`), whose relative lines stand
    behind `base`. With `main_content` navigation, footers and the like are left out. What is malformed is left out
    and told in the report, record by record.
    """

    paths: str | Sequence[str]
    main_content: bool = True
    base: str = BASE
    validation_share: float = DEFAULT_SHARE

    corpus_name = "common_crawl"

    def __post_init__(self) -> None:
        check_share(self.validation_share)
        needed("data=common_crawl", *LIBRARIES)

    def plan(self, files: InputFiles) -> ReadingPlan:
        """Find the files and cut those whose records are compressed one by one."""
        inputs = find_inputs(self.paths, files, self.base)
        _refuse_wat(inputs)
        total = sum(file.size or 0 for file in inputs)
        pieces = [piece for file in inputs for piece in self._pieces(file, piece_bytes(total))]
        split = choose_split(first_documents(pieces), self.validation_share)
        settings = {
            "kind": "common_crawl",
            "main_content": self.main_content,
            "split": split.settings(),
            "versions": versions(*LIBRARIES),
        }
        return ReadingPlan(
            fingerprint(settings, (file.identity for file in inputs)), pieces, split, total or None
        )

    def _pieces(self, file: InputFile, limit: int) -> Iterator["ArchivePiece"]:
        if file.size is None or file.size <= limit or not _can_be_cut(file.address):
            yield ArchivePiece(file.address, self.main_content)
            return
        for start in range(0, file.size, limit):
            yield ArchivePiece(file.address, self.main_content, start, start + limit)


def _refuse_wat(inputs: Sequence[InputFile]) -> None:
    for file in inputs:
        if ".wat" in file.address.rpartition("/")[2]:
            raise ConfigError(
                f"data.paths: {file.address} is a WAT file, which holds what is known of pages but not their text. "
                "Give WARC files (text extracted here) or WET files (text extracted by Common Crawl)."
            )


def _can_be_cut(address: str) -> bool:
    """Whether a second record begins at a place of its own, near the first."""
    with closing(open_address(address)) as file:
        return file.read(len(GZIP)) == GZIP and next_record(file, 1, LOOK_BYTES) is not None


@dataclass(frozen=True)
class ArchivePiece:
    """The records of an archive that begin in its bytes [start, end)."""

    address: str
    main_content: bool
    start: int = 0
    end: float = float("inf")

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the pages in order, passing over records that are malformed."""
        with closing(open_address(self.address)) as file:
            position = next_record(file, self.start) if self.start else 0
            while position is not None and position < self.end:
                position = yield from self._stretch(file, position, left_out)

    def _stretch(
        self, file: BinaryIO, position: int, left_out: LeftOut
    ) -> Generator[Document, None, int | None]:
        """The pages from `position` up to damage; returns where a sound record may follow, None at the end."""
        from fastwarc.warc import ArchiveIterator

        if position:
            file.seek(position)
        try:
            for record in ArchiveIterator(file, parse_http=False):
                position = record.stream_pos
                if position >= self.end:
                    return None
                yield from self._page(record, position, left_out)
        except (OSError, RuntimeError, ValueError) as error:
            left_out.add(
                "bad", self._place(position), f"this record or what follows it is malformed: {error}"
            )
            return next_record(file, position + 1) if file.seekable() else None
        if file.seekable() and (torn := next_record(file, position + 1)) is not None:
            left_out.add("bad", self._place(torn), "the file ends inside this record")
        return None

    def _place(self, position: int) -> str:
        return f"{self.address}, record at byte {position}"

    def _page(self, record: Any, position: int, left_out: LeftOut) -> Iterator[Document]:
        """The document of a record, none where it holds no page."""
        from fastwarc.warc import WarcRecordType

        is_page = record.record_type == WarcRecordType.response and record.is_http
        if is_page:
            record.parse_http()
        elif record.record_type != WarcRecordType.conversion:
            return
        data = record.reader.read(LARGEST_PAGE + 1)
        flaw = _flaw(record, data)
        data = _decoded(record, data) if is_page and not flaw else data
        if flaw := flaw or _too_large(data):
            left_out.add("bad", self._place(position), flaw)
            return
        if is_page and (record.http_content_type not in HTML or record.http_headers.status_code >= 400):
            left_out.add("not_html")
            return
        text = self._extract(data, record.http_charset) if is_page else data.decode("utf-8", "replace")
        yield Document(record.headers.get("WARC-Target-URI") or self._place(position), clean_text(text))

    def _extract(self, data: bytes, charset: str | None) -> str:
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.encoding import bytes_to_str, detect_encoding

        html = bytes_to_str(data, charset or detect_encoding(data, from_html_meta=True) or "utf-8")
        return extract_plain_text(html, main_content=self.main_content, alt_texts=False)


def _flaw(record: Any, data: bytes) -> str | None:
    """Why a record's content can't be used, None where it can."""
    if record.http_headers is not None and record.http_headers.status_code is None:
        return "it has no HTTP status"
    if len(data) < min(record.content_length, LARGEST_PAGE):
        return f"it is cut short: {len(data)} of {record.content_length} bytes are there"
    return _too_large(data)


def _too_large(data: bytes) -> str | None:
    return f"the page is larger than {LARGEST_PAGE >> 20} MiB" if len(data) > LARGEST_PAGE else None


def _decoded(record: Any, data: bytes) -> bytes:
    """A response's body without the codings that its headers name and that the archive kept; many don't."""
    from fastwarc.stream_io import BrotliReader, ChunkedReader

    headers = record.http_headers
    codings = f"{headers.get('Transfer-Encoding')} {headers.get('Content-Encoding')}".lower()
    with suppress(OSError, zlib.error):
        if "chunked" in codings and CHUNK.match(data):
            data = ChunkedReader(BytesIO(data)).read(LARGEST_PAGE + 1)
        if data.startswith(GZIP):
            return zlib.decompressobj(31).decompress(data, LARGEST_PAGE + 1)
        if "br" in codings.split():
            return BrotliReader(BytesIO(data)).read(LARGEST_PAGE + 1)
    return data


def next_record(file: BinaryIO, start: int, reach: float = float("inf")) -> int | None:
    """The first place at or after byte `start` where a record begins, compressed by itself or plain.

    None where there is none in the next `reach` bytes or so.
    """
    file.seek(start)
    kept, base = b"", start
    while block := file.read(LOOK_BYTES):
        kept += block
        is_last = len(block) < LOOK_BYTES
        for match in START.finditer(kept):
            if not is_last and match.start() + HEAD_BYTES > len(kept):
                break
            if _begins_record(kept, match.start(), base):
                return base + match.start()
        if base + len(kept) - start >= reach:
            return None
        rest = kept[-HEAD_BYTES:]
        base, kept = base + len(kept) - len(rest), rest
    return None


def _begins_record(data: bytes, at: int, base: int) -> bool:
    if not data.startswith(GZIP, at):
        return data[at - 1 : at] == b"\n" if at else base == 0
    try:
        head = zlib.decompressobj(wbits=31).decompress(data[at : at + HEAD_BYTES], 16)
    except zlib.error:
        return False
    return head.startswith(b"WARC/")
