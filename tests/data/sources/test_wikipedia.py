import bz2
import re
from collections import Counter
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest

from llm.data.documents import LeftOut
from llm.data.files.bzip2 import blocks
from llm.data.files.inputs import InputFiles
from llm.data.sources import Wikipedia, wikipedia
from llm.data.sources.wikipedia import PagesPiece
from llm.errors import ConfigError, DataError

HEAD = (
    '<mediawiki><siteinfo><namespaces><namespace key="6" case="first-letter">Datei</namespace></namespaces>'
    "</siteinfo>\n"
)
MARKUP = re.compile(
    r"\{\{|\}\}|\[\[|\]\]|<ref|\{\||\|\}|''|</?[a-zA-Z][^<>\n]*>|&[a-z]+;|^[|!]", re.MULTILINE
)


def page(title: str, text: str, extra: str = "", namespace: int = 0) -> str:
    return (
        f"  <page>\n<title>{escape(title)}</title><ns>{namespace}</ns>{extra}"
        f"<revision><model>wikitext</model><text>{escape(text)}</text></revision>\n</page>\n"
    )


def dump(*pages: str) -> bytes:
    return (HEAD + "".join(pages) + "</mediawiki>\n").encode()


def read(paths, left_out: LeftOut | None = None) -> dict[str, str]:
    plan = Wikipedia(paths, validation_share=0).plan(InputFiles())
    documents = [document for piece in plan.pieces for document in piece.documents(left_out or LeftOut())]
    assert len(documents) == len({document.id for document in documents})
    return {document.id: document.text for document in documents}


PAGES = [page(f"Title {n}", f"Text {n} &c. " + "é" * (n % 70)) for n in range(400)]
ARTICLES = {f"Title {n}": f"Title {n}\n\n" + f"Text {n} &c. {'é' * (n % 70)}".strip() for n in range(400)}


def test_articles_alone_and_clean(write) -> None:
    pages = [
        page("A & B", "'''A''' [[b]] [[Datei:x.jpg|mini|no]]"),
        page("C", "#REDIRECT [[A]]", '<redirect title="A" />'),
        page("Talk:A", "talk", namespace=1),
        page("Empty", "{{stub}}"),
    ]
    folder, left_out = write({"a.xml": dump(*pages)}), LeftOut()
    assert read([f"{folder}/a.xml"], left_out) == {"A & B": "A & B\n\nA b", "Empty": ""}
    assert left_out.counts == {"redirect": 1, "no_article": 1}


@pytest.mark.parametrize("size", [37, 1000, 5000, 1 << 20])
def test_each_page_is_read_once_wherever_the_pieces_end(write, monkeypatch, size) -> None:
    monkeypatch.setattr(wikipedia, "piece_bytes", lambda total: size)
    folder = write({"a.xml": dump(*PAGES), "b.xml.bz2": bz2.compress(dump(*PAGES), 1)})
    assert read([f"{folder}/a.xml"]) == ARTICLES
    assert read([f"{folder}/b.xml.bz2"]) == ARTICLES


@pytest.fixture
def large(write):
    """A dump of several blocks, as one stream and as many, as Wikipedia's multistream dumps are."""
    import random

    draw = random.Random(0)
    pages = [page(f"T{n}", " ".join(str(draw.random()) for _ in range(400))) for n in range(100)]
    data = dump(*pages)
    streams = b"".join(bz2.compress("".join(pages[n : n + 7]).encode()) for n in range(0, 100, 7))
    multi = bz2.compress(HEAD.encode()) + streams + bz2.compress(b"</mediawiki>\n")
    files = {"one.xml.bz2": bz2.compress(data, 1), "multi.xml.bz2": multi, "plain.xml": data}
    return write(files)


def test_any_kind_of_bzip2_can_be_cut(large, monkeypatch) -> None:
    plain = read([f"{large}/plain.xml"])
    assert len(plain) == 100
    for name in ("one", "multi"):
        for size in (20_000, 100_000, 1 << 30):
            monkeypatch.setattr(wikipedia, "piece_bytes", lambda total, size=size: size)
            assert read([f"{large}/{name}.xml.bz2"]) == plain


def test_blocks_are_what_bzip2_itself_unpacks(large) -> None:
    for name in ("one", "multi"):
        path = large / f"{name}.xml.bz2"
        with path.open("rb") as file:
            found = list(blocks(file, 0))
        assert b"".join(block.data for block in found) == bz2.decompress(path.read_bytes())
        assert len(found) >= 6


def test_damage_costs_the_block_and_no_more(large) -> None:
    path = large / "one.xml.bz2"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data[: len(data) - 1000])
    left_out = LeftOut()
    kept = read([str(path)], left_out)
    assert 50 < len(kept) < 100
    assert left_out.counts["bad"] >= 2
    assert any("block at bit" in id_ for id_, _ in left_out.cases["bad"])


def test_a_malformed_page_is_told_and_passed_over(write) -> None:
    pages = [page("A", "one"), page("B", "two").replace("</title>", "</titel>"), page("C", "three")]
    folder, left_out = write({"a.xml": dump(*pages)}), LeftOut()
    assert list(read([f"{folder}/a.xml"], left_out)) == ["A", "C"]
    assert left_out.cases["bad"][0][0].endswith("page 'B'")


def test_what_is_no_dump_is_refused(write) -> None:
    folder = write({"a.txt": "text", "b.xml": "<html/>"})
    with pytest.raises(ConfigError, match=r"a\.txt is no \.xml or \.xml\.bz2"):
        Wikipedia([f"{folder}/a.txt"]).plan(InputFiles())
    with pytest.raises(DataError, match="The data has no text"):
        Wikipedia([f"{folder}/b.xml"]).plan(InputFiles())


def test_a_page_without_end_takes_no_memory_without_end(write, monkeypatch) -> None:
    monkeypatch.setattr(wikipedia, "LARGEST_PAGE", 1 << 16)
    monkeypatch.setattr(wikipedia, "BLOCK_BYTES", 1 << 14)
    folder, left_out = (
        write({"a.xml": HEAD + "<page><title>Bomb</title>" + "x" * (1 << 18) + page("A", "one")}),
        LeftOut(),
    )
    documents = list(PagesPiece(f"{folder}/a.xml", ()).documents(left_out))
    assert [document.id for document in documents] == ["A"]
    assert "no end" in left_out.cases["bad"][0][1]


# What is no prose, taken out of wikitext from the inside out, as roughly as will do to find sentences without markup.
NO_PROSE = re.compile(
    r"\{\{[^{}]*\}\}|\{\|(?:(?!\{\||\|\}).)*\|\}|<!--.*?-->|<ref[^>/]*/>|<ref[^>]*>.*?</ref>"
    r"|<(gallery|math|timeline|nowiki|imagemap)[^>]*>.*?</\1>"
    r"|\[\[(?:File|Image):(?:[^\[\]]|\[\[[^\[\]]*\]\]|\[[^\[\]]*\])*\]\]",
    re.DOTALL | re.IGNORECASE,
)


def plain_sentences(wikitext: str) -> list[str]:
    """Sentences of six words or more that need no rendering."""
    while (shorter := NO_PROSE.sub("\0", wikitext)) != wikitext:
        wikitext = shorter
    paragraphs = [line for line in wikitext.split("\n") if line and line[0] not in "=*#:;|!{\0 "]
    sentences = [part for paragraph in paragraphs for part in re.split(r"(?<=[.!?]) ", paragraph)]
    plain = [part for part in sentences if not re.search(r"[\[\]{}<>|'&=*#_\0]", part)]
    return [" ".join(part.split()) for part in plain if len(part.split()) >= 6]


def test_every_article_of_a_real_dump_is_there_and_clean(shared_data) -> None:
    path, left_out = shared_data / "raw/enwiki-pages-articles.xml.bz2", LeftOut()
    articles = read([str(path)], left_out)
    pages = ElementTree.fromstring(bz2.decompress(path.read_bytes())).findall("{*}page")
    # 206 pages: 106 articles, 99 redirects to them, and a redirect in another namespace.
    assert Counter((page.findtext("{*}ns"), page.find("{*}redirect") is not None) for page in pages) == {
        ("0", False): 106,
        ("0", True): 99,
        ("4", True): 1,
    }
    wikitexts = {
        page.findtext("{*}title"): page.findtext("{*}revision/{*}text")
        for page in pages
        if page.findtext("{*}ns") == "0" and page.find("{*}redirect") is None
    }
    assert articles.keys() == wikitexts.keys()
    assert left_out.counts == {"redirect": 100}
    assert {title: found[0] for title, text in articles.items() if (found := MARKUP.search(text))} == {}
    lost, count = {}, 0
    for title, text in articles.items():
        assert text.startswith(f"{title}\n\n")
        prose, sentences = " ".join(text.split()), plain_sentences(wikitexts[title])
        lost[title] = [sentence for sentence in sentences if sentence not in prose]
        count += len(sentences)
        assert len(lost[title]) <= max(2, len(sentences) // 20), lost[title]
    # What is missing stands in lists of sources, or has a note where a word of it was shown by a template.
    assert count > 4000
    assert sum(map(len, lost.values())) <= count // 200
    assert "self-governed societies based on voluntary institutions" in articles["Anarchism"]
