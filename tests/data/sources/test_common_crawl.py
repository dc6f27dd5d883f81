import gzip
import io
import re

import brotli
import pytest
from fastwarc.warc import ArchiveIterator

from llm.data.documents import LeftOut
from llm.data.files.inputs import InputFiles
from llm.data.sources import CommonCrawl, common_crawl
from llm.data.sources.common_crawl import ArchivePiece
from llm.errors import ConfigError, DataError


def record(kind: str, uri: str, content: bytes) -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {uri}\r\nWARC-Record-ID: <urn:{uri}>\r\n"
    types = {"response": "application/http; msgtype=response", "conversion": "text/plain"}
    head += f"WARC-Date: 2024-01-01T00:00:00Z\r\nContent-Type: {types[kind]}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content + b"\r\n\r\n"


def response(uri: str, body: bytes, kind: str = "text/html", status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return record("response", uri, head.encode() + body)


def html(text: str) -> bytes:
    return f"<html><head><title>t</title></head><body><p>{text}</p></body></html>".encode()


RECORDS = [response(f"http://x.org/{n}", html(f"Page number {n} " + "word " * (n % 50))) for n in range(300)]
ADDRESSES = [f"http://x.org/{n}" for n in range(300)]


def read(paths, left_out: LeftOut | None = None, **settings):
    plan = CommonCrawl(paths, validation_share=0, **settings).plan(InputFiles())
    return [document for piece in plan.pieces for document in piece.documents(left_out or LeftOut())]


def test_html_pages_alone(write) -> None:
    records = [
        response("http://a.org", html("Caf\u00e9"), "text/html; charset=utf-8"),
        response("http://b.org", "<p>Caf\u00e9".encode("latin-1"), "text/html; charset=iso-8859-1"),
        response("http://c.org", b"{}", "application/json"),
        response("http://d.org", html("gone"), status="404 Not Found"),
        record("conversion", "http://e.org", b"A text"),
    ]
    folder, left_out = write({"a.warc": b"".join(records)}), LeftOut()
    found = {document.id: document.text for document in read([f"{folder}/a.warc"], left_out)}
    assert found == {"http://a.org": "Caf\u00e9", "http://b.org": "Caf\u00e9", "http://e.org": "A text"}
    assert left_out.counts == {"not_html": 2}


@pytest.mark.parametrize("size", [100, 999, 5000, 1 << 20])
def test_each_page_is_read_once_wherever_the_pieces_end(write, monkeypatch, size) -> None:
    monkeypatch.setattr(common_crawl, "piece_bytes", lambda total: size)
    folder = write({"a.warc.gz": b"".join(map(gzip.compress, RECORDS))})
    assert [document.id for document in read([f"{folder}/a.warc.gz"])] == ADDRESSES


@pytest.mark.parametrize("pack", [lambda records: gzip.compress(b"".join(records)), b"".join])
def test_what_can_not_be_cut_is_read_whole(write, monkeypatch, pack) -> None:
    monkeypatch.setattr(common_crawl, "piece_bytes", lambda total: 500)
    folder = write({"a.warc": pack(RECORDS)})
    assert [document.id for document in read([f"{folder}/a.warc"])] == ADDRESSES


def test_malformed_records_are_told_one_by_one(write) -> None:
    wrong = RECORDS[5].replace(b"Content-Length: ", b"Content-Length: 9", 1)
    garbage = b"\0\1\2 this is no record\r\n\r\n"
    records = [*RECORDS[:5], garbage, *RECORDS[6:10], wrong[:200] + b"\r\n\r\n", *RECORDS[11:20]]
    folder, left_out = write({"a.warc": b"".join(records)}), LeftOut()
    found = [document.id for document in read([f"{folder}/a.warc"], left_out)]
    assert set(ADDRESSES[:5] + ADDRESSES[6:9] + ADDRESSES[12:20]) <= set(found)
    assert len(left_out.cases["bad"]) == left_out.counts["bad"] >= 2
    assert all("record at byte" in id_ for id_, _ in left_out.cases["bad"])


def test_a_truncated_file_gives_what_is_whole(write) -> None:
    packed = [gzip.compress(r) for r in RECORDS[:20]]
    folder, left_out = write({"a.warc.gz": b"".join(packed)[: -len(packed[-1]) // 3]}), LeftOut()
    assert [document.id for document in read([f"{folder}/a.warc.gz"], left_out)] == ADDRESSES[:19]
    assert left_out.counts["bad"] == 1


def test_damage_inside_a_compressed_record_costs_that_record(write, monkeypatch) -> None:
    monkeypatch.setattr(common_crawl, "piece_bytes", lambda total: 2000)
    packed = [gzip.compress(r) for r in RECORDS]
    packed[50] = packed[50][:40] + bytes(20) + packed[50][60:]
    folder, left_out = write({"a.warc.gz": b"".join(packed)}), LeftOut()
    found = [document.id for document in read([f"{folder}/a.warc.gz"], left_out)]
    assert set(ADDRESSES) - set(found) <= set(ADDRESSES[49:51])
    assert left_out.counts["bad"] >= 1


def test_an_unending_page_is_passed_over(write, monkeypatch) -> None:
    monkeypatch.setattr(common_crawl, "LARGEST_PAGE", 10_000)
    bomb = gzip.compress(b"<p>" + b"x" * 5_000_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    records = [RECORDS[0], record("response", "http://bomb.org", head.encode() + bomb), RECORDS[1]]
    folder, left_out = write({"a.warc": b"".join(records)}), LeftOut()
    assert [document.id for document in read([f"{folder}/a.warc"], left_out)] == ADDRESSES[:2]
    assert "larger than" in left_out.cases["bad"][0][1]


def coded(names: str, body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{names}\r\n\r\n".encode() + body


def test_codings_that_the_archive_kept_or_undid(write) -> None:
    page = html("Plain text")
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(page), page)
    bodies = {
        "Transfer-Encoding: chunked": [page, chunked],
        "Content-Encoding: gzip": [page, gzip.compress(page)],
        "Content-Encoding: br": [page, brotli.compress(page)],
        "Content-Encoding: gzip\r\nTransfer-Encoding: chunked": [page],
    }
    records = [
        record("response", f"http://x.org/{number}/{names[:20]}", coded(names, body))
        for names, some in bodies.items()
        for number, body in enumerate(some)
    ]
    folder = write({"a.warc": b"".join(records)})
    assert [document.text for document in read([f"{folder}/a.warc"])] == ["Plain text"] * 7


def test_lists_and_addresses(write, tmp_path) -> None:
    folder = write({"a.warc.gz": b"".join(map(gzip.compress, RECORDS[:3]))})
    listing = write({"warc.paths.gz": gzip.compress(b"a.warc.gz\n")}, "lists") / "warc.paths.gz"
    for paths, base in (([str(listing)], f"{folder}/"), ([f"file://{folder}/*.gz"], "")):
        assert [document.id for document in read(paths, base=base)] == ADDRESSES[:3]


def test_what_is_no_archive_is_refused(write) -> None:
    folder = write({"a.warc.wat.gz": b"", "b.txt": "text " * 100, "empty.warc": b""})
    with pytest.raises(ConfigError, match=r"a\.warc\.wat\.gz is a WAT file.*Give WARC files"):
        read([f"{folder}/a.warc.wat.gz"])
    with pytest.raises(DataError, match=r"no text.*1 bad"):
        read([f"{folder}/b.txt"])
    with pytest.raises(ConfigError, match="no file at file:///nowhere"):
        read(["file:///nowhere/a.warc.gz"])


def test_a_real_crawl_gives_its_pages(shared_data) -> None:
    left_out = LeftOut()
    pages = read([str(shared_data / "raw/iana.warc.gz")], left_out)
    assert len(pages) == 20
    assert sum(1 for page in pages if not page.data) == 2  # answers that lead elsewhere, without a body
    assert left_out.counts == {"not_html": 28}
    assert all(page.id.startswith(("http://www.iana.org", "https://www.iana.org")) for page in pages)
    assert not any(re.search(r"</?(?:p|div|a|span|td)\b", page.text) for page in pages)


def test_a_real_malformed_file_is_told_record_by_record(shared_data) -> None:
    path, left_out = shared_data / "raw/malformed.warc", LeftOut()
    pages = read([str(path)], left_out)
    assert [page.id for page in pages] == [
        "http://example.com?example=1",
        "http://www.iana.org/domains/example",
    ]
    assert [id_ for id_, _ in left_out.cases["bad"]] == [f"{path}, record at byte 4061"]
    with pytest.raises(OSError, match="Invalid WARC header"):
        list(ArchiveIterator(io.BytesIO(path.read_bytes())))


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def test_common_crawls_own_text_holds_ours(shared_data) -> None:
    (wet,) = read([str(shared_data / "raw/common-crawl.warc.wet.gz")])
    (main,) = read([str(shared_data / "raw/common-crawl.warc.gz")])
    (whole,) = read([str(shared_data / "raw/common-crawl.warc.gz")], main_content=False)
    assert wet.id == main.id == "https://an.wikipedia.org/wiki/Escopete"
    theirs = set(words(wet.text))
    assert sum(word in theirs for word in words(whole.text)) > 0.97 * len(words(whole.text))
    assert sum(word in set(words(whole.text)) for word in theirs) > 0.9 * len(theirs)
    prose = next(line for line in main.text.split("\n") if line.startswith("Ye situato a 860 metros"))
    assert " ".join(prose.split()) in wet.text.replace("\u00a0", " ")


def test_a_piece_of_nothing_has_nothing(write) -> None:
    folder = write({"a.warc.gz": b"".join(map(gzip.compress, RECORDS[:3]))})
    assert list(ArchivePiece(f"{folder}/a.warc.gz", True, 10_000, 20_000).documents(LeftOut())) == []
