"""Who is let in, who is refused, who leaves, and how the server ends."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time

import httpx
import pytest
from small_server import TOKENIZER, serving, small, wait_until

from llm.cli.main import main
from llm.errors import ConfigError
from llm.serve import Guarding, Served
from llm.serve import guard as guard_module

KEY = "sk-secret"
LONG = {"prompt": "once", "max_tokens": 500, "temperature": 0}


@pytest.fixture
def slow():
    """A model whose steps take ten milliseconds, for two texts at a time and three that wait."""
    served = Served("slow", small(context_length=512), TOKENIZER, rows=2, waiting=3)
    step = served.worker._engine.step

    def delayed():
        time.sleep(0.01)
        return step()

    served.worker._engine.step = delayed
    return served


@pytest.fixture
def slow_http(slow):
    with serving(slow) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield client


def long(**changes):
    return {"model": "slow", **LONG, **changes}


def basic(password):
    return f"Basic {base64.b64encode(f'me:{password}'.encode()).decode()}"


def test_every_route_but_health_is_behind_the_key():
    tiny = Served("tiny", small(), TOKENIZER)
    with serving(tiny, guarding=Guarding(KEY)) as address, httpx.Client(base_url=address) as client:
        routes = ["/", "/v1/models", "/v1/models/tiny", "/metrics", "/openapi.json", "/nothing"]
        for path in routes:
            answer = client.get(path)
            assert answer.status_code == 401, path
            assert answer.json()["error"]["code"] == "invalid_api_key"
        for path in ("completions", "chat/completions", "embeddings"):
            assert client.post(f"/v1/{path}", json={}).status_code == 401
        assert client.get("/health").status_code == 200
        for wrong in ("", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", KEY, f"Token {KEY}", basic("x"),
                      "Basic !!!", "Basic " + base64.b64encode(b"\xff:\xff").decode(), "Bearer ключ".encode()):  # fmt: skip
            assert client.get("/v1/models", headers={"Authorization": wrong}).status_code == 401
        for right in (f"Bearer {KEY}", f"bearer {KEY}", basic(KEY)):
            assert client.get("/v1/models", headers={"Authorization": right}).status_code == 200


def test_keys_are_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr(guard_module.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or False)
    with serving(Served("tiny", small(), TOKENIZER), guarding=Guarding(KEY)) as address:
        httpx.get(f"{address}/v1/models", headers={"Authorization": "Bearer wrong"})
    assert compared == [(b"wrong", KEY.encode())]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "127.0.0.1.example.com"])
def test_other_addresses_need_a_key(host):
    with pytest.raises(ConfigError, match="api_key"):
        Guarding.of(host, None)
    assert Guarding.of(host, KEY).hosts is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.8.8.8"])
def test_loopback_needs_none(host):
    assert Guarding.of(host, None).api_key is None


@pytest.mark.parametrize("key", ["", " a", "a ", "ключ", "a\nb"])
def test_a_key_that_no_header_carries_is_refused(key):
    with pytest.raises(ConfigError, match="printable"):
        Guarding.of("127.0.0.1", key)


def test_the_command_refuses_before_it_loads_anything(capsys, monkeypatch):
    monkeypatch.delenv("LLM_API_KEY", raising=False)
    assert main(["serve", "run=nowhere", "host=0.0.0.0"]) == 2
    assert "others can reach this address" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "run=nowhere", f"port={taken.getsockname()[1]}"]) == 2
    assert "Choose another port" in capsys.readouterr().err
    assert main(["serve", "run=./nowhere", "port=0"]) == 1
    assert main(["serve", "run=[a/x,b/x]", "port=0"]) == 2
    assert "rename one" in capsys.readouterr().err


def test_ones_own_origin_may(http):
    address = f"http://{http.base_url.netloc.decode()}"
    assert http.get("/v1/models", headers={"Origin": address}).status_code == 200


def test_a_full_queue_says_when_to_come_again(slow, slow_http):
    answers = []

    def ask():
        with httpx.Client(base_url=slow_http.base_url, timeout=30) as client:
            answers.append(client.post("/v1/completions", json=long(max_tokens=60)))

    threads = [threading.Thread(target=ask) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 5 + [429] * 4
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert slow.worker.in_flight == 0
    many = slow_http.post("/v1/completions", json=long(prompt=["a"] * 16, n=8, max_tokens=1))
    assert len(many.json()["choices"]) == 128  # alone, even more than all the room is served


@contextlib.contextmanager
def asking(http, path="completions", body=None, **changes):
    """A connection that has sent its request, and reads nothing."""
    body = json.dumps(body or long(**changes)).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least that the system gives
        connection.connect((http.base_url.host, http.base_url.port))
        head = b"POST /v1/%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % (path.encode(), http.base_url.netloc, len(body)) + body)
        yield


def test_a_client_that_reads_nothing_holds_no_row(slow, slow_http):
    with asking(slow_http, stream=True, max_tokens=60, logprobs=20), asking(slow_http, stream=True, max_tokens=60, logprobs=20):  # fmt: skip
        wait_until(lambda: slow.worker.in_flight == 2)
        wait_until(lambda: slow.worker.in_flight == 0, 3.0)  # both rows, by then written to the end
        assert slow_http.post("/v1/completions", json=long(max_tokens=3)).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_vanishes_frees_its_row(slow, slow_http, stream):
    with asking(slow_http, stream=stream):
        wait_until(lambda: slow.worker.in_flight == 1)
        time.sleep(0.1)
    began = time.monotonic()
    wait_until(lambda: slow.worker.in_flight == 0)
    assert time.monotonic() - began < 1.0  # its 500 tokens would take five
    assert slow_http.post("/v1/completions", json=long(max_tokens=3)).status_code == 200


@pytest.fixture
def slow_embeddings(slow, monkeypatch):
    """Which texts have been embedded; each takes a tenth of a second."""
    done, embedding = [], slow.embedding
    monkeypatch.setattr(slow, "embedding", lambda ids: (done.append(ids), time.sleep(0.1), embedding(ids))[2])
    return done


def test_a_client_that_vanishes_ends_its_embeddings(slow, slow_http, slow_embeddings):
    with asking(slow_http, "embeddings", {"model": "slow", "input": ["text"] * 16}):
        wait_until(lambda: slow_embeddings)
    wait_until(lambda: slow.worker.in_flight == 0, 1.0)
    assert len(slow_embeddings) <= 5


def test_embeddings_and_the_tokens_of_a_text_take_turns(slow, slow_http, slow_embeddings):
    with asking(slow_http, "embeddings", {"model": "slow", "input": ["text"] * 16}):
        wait_until(lambda: slow_embeddings)
        assert slow_http.post("/v1/completions", json=long(max_tokens=9)).status_code == 200
        assert len(slow_embeddings) < 16
        wait_until(lambda: slow.worker.in_flight == 0)
    assert len(slow_embeddings) == 16


def test_a_stop_in_the_text_frees_the_row_too(slow, slow_http):
    free = slow_http.post("/v1/completions", json=long(max_tokens=20)).json()["choices"][0]["text"]
    began = time.monotonic()
    slow_http.post("/v1/completions", json=long(stop=[free[3:6]]))
    assert time.monotonic() - began < 2.0
    wait_until(lambda: slow.worker.in_flight == 0, 1.0)


def test_a_body_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(guard_module, "BODY_SECONDS", 0.2)
    with serving(Served("tiny", small(), TOKENIZER)) as address:
        url = httpx.URL(address)
        with socket.create_connection((url.host, url.port)) as connection:
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
            )
            connection.settimeout(5)
            assert b" 408 " in connection.recv(1000)


def test_a_model_that_fails_is_told_and_the_next_request_works(slow, slow_http, monkeypatch):
    engine, step = slow.worker._engine, slow.worker._engine.step

    def failing():
        engine.step = step
        raise RuntimeError("out of luck")

    engine.step = failing
    answer = slow_http.post("/v1/completions", json=long(max_tokens=3))
    assert answer.status_code == 500
    assert "luck" not in answer.text
    assert slow_http.post("/v1/completions", json=long(max_tokens=3)).status_code == 200


def test_figures_count_what_happened(slow, slow_http):
    slow_http.post("/v1/completions", json=long(max_tokens=5))
    slow_http.post("/v1/completions", json=long(max_tokens=-5))
    text = slow_http.get("/metrics").text
    assert 'llm_requests_total{route="/v1/completions",status="200"} 1.0' in text
    assert 'llm_requests_total{route="/v1/completions",status="400"} 1.0' in text
    assert 'llm_tokens_total{kind="written",model="slow"} 5.0' in text
    assert 'llm_tokens_total{kind="read",model="slow"} 4.0' in text
    assert 'llm_time_to_first_token_seconds_count{model="slow"} 1.0' in text
    assert 'llm_time_between_tokens_seconds_count{model="slow"} 4.0' in text
    assert 'llm_requests_running{model="slow"} 0.0' in text


def test_the_command_serves_a_run_and_drains_on_sigterm(python, tiny, tmp_path):
    longer = [word.replace("context_length=32", "context_length=512") for word in tiny]
    assert main(["train", *longer, "name=a", "trainer.max_steps=2"]) == 0
    words = [python, "-m", "llm", "serve", f"run={tmp_path}/runs/a", "port=0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "LLM_API_KEY": KEY})  # fmt: skip
    try:
        address = process.stdout.readline().split()[-1]
        assert "plain lines" in process.stdout.readline()
        headers = {"Authorization": f"Bearer {KEY}"}
        ask = {"model": "a", "prompt": "x", "max_tokens": 400, "stream": True, "logit_bias": {"2": -100}}
        wait_until(lambda: _answers(address))
        with httpx.stream(
            "POST", f"{address}/v1/completions", json=ask, headers=headers, timeout=30
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert process.wait(20) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _answers(address):
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.TransportError:
        return False


def test_many_requests_one_after_the_other_leave_nothing_behind(slow):
    async def ask(client):
        answer = await client.post("/v1/completions", json=long(max_tokens=3, n=2))
        return answer.status_code

    async def all_of_them(address):
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:
            return [code for _ in range(20) for code in await asyncio.gather(ask(client), ask(client))]

    with serving(slow) as address:
        assert set(asyncio.run(all_of_them(address))) == {200}
        assert slow.worker._listeners == {}
        assert slow.worker.in_flight == 0
        assert slow.worker._engine.running == 0
