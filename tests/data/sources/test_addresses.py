"""Data at addresses: a server of this machine, memory, stores whose packages are missing, networks that fail."""

import gzip
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from test_common_crawl import ADDRESSES, RECORDS, read
from test_wikipedia import ARTICLES, PAGES, dump
from test_wikipedia import read as read_wikipedia

from llm.data.files import addresses
from llm.data.sources import common_crawl
from llm.errors import ConfigError, DataError

ARCHIVE = b"".join(map(gzip.compress, RECORDS))


class Files(BaseHTTPRequestHandler):
    """Serves `files` by name and by range; every so many-th request for a part of one is refused."""

    files: dict[str, bytes]
    refuse_every = 0
    asked = 0

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        data = self.files.get(self.path.lstrip("/"))
        start, _, end = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if data is None or (start and self._refuses()):
            self.send_error(404 if data is None else 503)
            return
        part = data[int(start) : int(end) + 1] if start else data
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)

    def _refuses(self) -> bool:
        type(self).asked += 1
        return self.refuse_every > 0 and self.asked % self.refuse_every == 0

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    """What serves, and its address."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(addresses, "PAUSES", (0.0, 0.0))

    files = {"a.warc.gz": ARCHIVE, "warc.paths": b"a.warc.gz\n", "b.xml": dump(*PAGES)}
    Handler = type("Handler", (Files,), {"files": files})
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield Handler, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def test_a_server_gives_what_a_disk_gives(server, monkeypatch) -> None:
    handler, base = server
    monkeypatch.setattr(common_crawl, "piece_bytes", lambda total: 9000)
    assert [document.id for document in read([f"{base}a.warc.gz"])] == ADDRESSES
    assert [document.id for document in read([f"{base}warc.paths"], base=base)] == ADDRESSES
    assert read_wikipedia([f"{base}b.xml"]) == ARTICLES
    assert handler.asked > 3


def test_memory_gives_what_a_disk_gives() -> None:
    store = fsspec.filesystem("memory")
    store.pipe({"/crawl/a.warc.gz": ARCHIVE, "/crawl/b.txt": b"no"})
    try:
        assert [document.id for document in read(["memory://crawl/*.warc.gz"])] == ADDRESSES
    finally:
        store.rm("/crawl", recursive=True)


def test_a_read_that_fails_is_tried_again_and_nothing_is_lost(server, monkeypatch) -> None:
    handler, base = server
    monkeypatch.setattr(common_crawl, "piece_bytes", lambda total: 9000)
    handler.refuse_every = 2
    assert [document.id for document in read([f"{base}a.warc.gz"])] == ADDRESSES


def test_what_is_gone_ends_the_work_and_is_no_malformed_record(server) -> None:
    handler, base = server
    handler.refuse_every = 1
    with pytest.raises(DataError, match=r"a\.warc\.gz can't be read any more: 503.*Finished pieces are kept"):
        read([f"{base}a.warc.gz"])


def test_what_is_not_there_and_who_does_not_answer_are_told_apart(server) -> None:
    _, base = server
    with pytest.raises(ConfigError, match=r"there is no file at http://127.*none\.warc\.gz"):
        read([f"{base}none.warc.gz"])
    with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:1/a\.warc can't be reached: .*connect"):
        read(["http://127.0.0.1:1/a.warc"])


@pytest.mark.parametrize(
    ("protocol", "module", "package"), [("http", "http", "aiohttp"), ("s3", "s3fs", "s3fs")]
)
def test_a_missing_package_is_named(monkeypatch, protocol, module, package) -> None:
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    name = "s3fs" if module == "s3fs" else f"fsspec.implementations.{module}"
    monkeypatch.setitem(sys.modules, name, None)
    told = rf"{protocol}://bucket/a\.warc needs a package.*{package}.*pip install 'fsspec\[{protocol}\]'"
    with pytest.raises(ConfigError, match=told):
        read([f"{protocol}://bucket/a.warc"])
