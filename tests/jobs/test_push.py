"""`llm export push_to=hub`, by the hub's own client, against a stand-in of its interface on this machine."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest

from llm.cli.main import main

TOKEN = "hf_" + "a1B2" * 8


class Hub(BaseHTTPRequestHandler):
    """Makes repositories and takes commits; whatever a file is, it comes in the commit itself."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = (self.path, self.headers["Authorization"], body)
        self.server.asked.append(asked)
        if self.server.refuses:
            return self._send(403, {"error": "no"})
        if self.path.endswith("/create"):
            return self._send(200, {"url": f"{self.server.address}/me/mine", "id": "me/mine"})
        if "/preupload/" in self.path:
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in json.loads(body)["files"]]  # fmt: skip
            return self._send(200, {"files": files})
        return self._send(200, {"commitUrl": f"{self.server.address}/me/mine/commit/0", "commitOid": "0"})

    def _send(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.refuses = [], False
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.hf_api.constants, "ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def run(text_folder, tmp_path_factory, tiny_words):
    folder = tmp_path_factory.mktemp("push")
    places = [f"data.paths=[{text_folder}/*.txt]", f"runs_dir={folder}", f"shards_dir={folder}/shards"]
    assert main(["train", *tiny_words, *places, "name=mine", "trainer.max_steps=1", "eval=[]"]) == 0
    return folder / "mine"


@pytest.fixture
def words(run, tmp_path):
    return ["export", f"run={run}", f"out={tmp_path}/out", "push_to=hub", "repo=me/mine"]


def committed(hub):
    """The content of each file of the last commit."""
    lines = [json.loads(line) for line in hub.asked[-1][2].splitlines()]
    return {
        line["value"]["path"]: base64.b64decode(line["value"]["content"])
        for line in lines
        if line["key"] == "file"
    }


def test_the_export_is_sent_whole_and_the_token_is_kept_nowhere(words, run, hub, tmp_path, capsys):
    assert main(words) == 0
    said = capsys.readouterr().out
    out = tmp_path / "out"
    here = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert committed(hub) == here
    assert "model.safetensors" in here
    assert all(name in said for name in here)
    assert "me/mine on the hub, private" in said
    assert {bearer for _, bearer, _ in hub.asked} == {f"Bearer {TOKEN}"}
    made = json.loads(hub.asked[0][2])
    assert (hub.asked[0][0], made["name"], made["organization"]) == ("/api/repos/create", "mine", "me")
    assert made.get("private") is True or made.get("visibility") == "private"
    assert TOKEN not in said
    files = [path for folder in (tmp_path, run) for path in folder.rglob("*") if path.is_file()]
    kept = [path for path in files if TOKEN.encode() in path.read_bytes()]
    assert kept == []


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(words, hub, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert main([*words, "dry_run=true", "private=false"]) == 0
    said = capsys.readouterr().out
    assert "me/mine on the hub, for everybody to see" in said
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
        assert name in said
    assert hub.asked == []
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_said_before_anything_is_written(words, hub, tmp_path, capsys, monkeypatch):
    assert main(words[:-1]) == 2
    assert "go together" in capsys.readouterr().err
    for name in ("mine", "me/my mine", "me/../mine"):
        assert main([*words[:-1], f"repo={name}"]) == 2
        assert "repo=" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", " ")
    assert main(words) == 2
    assert "set HF_TOKEN" in capsys.readouterr().err
    assert hub.asked == []
    assert not (tmp_path / "out").exists()


def test_a_hub_that_refuses_leaves_the_export_here(words, hub, tmp_path, capsys):
    hub.refuses = True
    assert main(words) == 1
    said = capsys.readouterr()
    assert f"hf upload me/mine {tmp_path}/out" in said.err
    assert TOKEN not in said.out + said.err
    assert (tmp_path / "out/model.safetensors").exists()
