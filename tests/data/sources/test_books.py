import io
import zipfile

import pytest

from llm.data.documents import LeftOut
from llm.data.files.inputs import InputFiles
from llm.data.sources import Books, books
from llm.data.sources.books import without_licence
from llm.errors import DataError

TEXT = """The Project Gutenberg eBook of Emma

This eBook is for the use of anyone anywhere.
Character set encoding: UTF-8

*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***

Produced by Somebody and
others

CHAPTER I

Emma Woodhouse, handsome, clever.

*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***

Updated editions will replace the previous one.
"""
OLD = """Small print
*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*

Call me Ishmael.

End of Project Gutenberg's Moby Dick
licence
"""
CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/content.opf"/></rootfiles></container>'
)
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf"><manifest>
<item id="b" href="two.xhtml"/><item id="a" href="text/one%20.xhtml"/><item id="c" href="unused.xhtml"/>
</manifest><spine><itemref idref="a"/><itemref idref="b"/></spine></package>"""


def epub(**changes: str | bytes | None) -> bytes:
    files = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/content.opf": PACKAGE,
        "OEBPS/text/one .xhtml": "<html><head><title>x</title></head><body><h1>One</h1><p>First &amp; caf\u00e9.</p></body></html>",
        "OEBPS/two.xhtml": "<html><body><p>Second.</p><script>no</script></body></html>",
    } | {name.replace("__", "/"): content for name, content in changes.items()}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            if content is not None:
                archive.writestr(name, content)
    return packed.getvalue()


def read(paths, left_out: LeftOut | None = None) -> list[str]:
    plan = Books(paths, validation_share=0).plan(InputFiles())
    return [document.text for piece in plan.pieces for document in piece.documents(left_out or LeftOut())]


@pytest.mark.parametrize(
    ("text", "book"),
    [
        (TEXT, "CHAPTER I\n\nEmma Woodhouse, handsome, clever."),
        (OLD, "Call me Ishmael."),
        ("A book.\n", "A book."),
    ],
)
def test_licences_are_left_out(text, book) -> None:
    assert without_licence(text).strip() == book


def test_text_and_epub_in_order(write, monkeypatch) -> None:
    monkeypatch.setattr(books, "piece_bytes", lambda total: 500)
    folder = write({"1.txt": TEXT, "2.epub": epub(), "3.txt": OLD})
    assert read([f"{folder}/*"]) == [
        "CHAPTER I\n\nEmma Woodhouse, handsome, clever.",
        "One\n\nFirst & caf\u00e9.\n\nSecond.",
        "Call me Ishmael.",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_any_encoding(write, encoding) -> None:
    text = (
        "Le caf\u00e9 \u00e9tait ferm\u00e9; la for\u00eat, d\u00e9serte. \u00ab\u00c0 bient\u00f4t\u00bb, dit-il. "
        * 20
    )
    folder = write({"a.txt": text.encode(encoding)})
    assert read([f"{folder}/a.txt"]) == [text.strip()]


def test_the_encoding_that_a_book_names(write) -> None:
    text = "Character set encoding: ISO-8859-2\n\nZa\u017c\u00f3\u0142\u0107"
    folder = write({"a.txt": text.encode("iso-8859-2")})
    assert read([f"{folder}/a.txt"]) == [text]


DTD = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
ENCRYPTED = '<e><CipherReference URI="OEBPS/two.xhtml"/></e>'
BROKEN = {
    "binary": (b"\x7fELF\0\0" * 10, "is NUL"),
    "no zip": (b"PK\3\4 not really", "zip"),
    "truncated": (epub()[:-100], "zip"),
    "no package": (epub(**{"META-INF__container.xml": "<container/>"}), "names no package"),
    "no container": (epub(**{"META-INF__container.xml": None}), "container.xml"),
    "malformed": (epub(**{"OEBPS__content.opf": "<package>"}), "malformed XML"),
    "entities": (epub(**{"OEBPS__content.opf": DTD + PACKAGE}), "defines entities"),
    "a missing chapter": (epub(**{"OEBPS__two.xhtml": None}), "two.xhtml"),
    "encrypted": (epub(**{"META-INF__encryption.xml": ENCRYPTED}), "two.xhtml is encrypted"),
    "bomb": (epub(**{"OEBPS__two.xhtml": "<p>" + "x" * 3_000_000}), "more than"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_can_not_be_read_is_told_and_passed_over(write, monkeypatch, name) -> None:
    monkeypatch.setattr(books, "LARGEST_BOOK", 1 << 20)
    content, why = BROKEN[name]
    folder, left_out = write({"a.txt": "A book.", "b": content, "c.txt": "Another."}), LeftOut()
    assert read([f"{folder}/*"], left_out) == ["A book.", "Another."]
    assert left_out.counts == {"bad": 1}
    ((where, reason),) = left_out.cases["bad"]
    assert where.endswith("/b")
    assert why in reason


def test_a_bomb_is_not_unpacked(monkeypatch) -> None:
    monkeypatch.setattr(books, "LARGEST_BOOK", 1 << 20)
    asked = []
    read_member = zipfile.ZipExtFile.read
    monkeypatch.setattr(
        zipfile.ZipExtFile, "read", lambda self, n=-1: asked.append(n) or read_member(self, n)
    )
    bomb = epub(**{"OEBPS__two.xhtml": bytes(5_000_000)})
    with pytest.raises(DataError, match="more than"):
        books._epub(io.BytesIO(bomb))
    assert all(0 < n <= (1 << 20) + 1 for n in asked)
