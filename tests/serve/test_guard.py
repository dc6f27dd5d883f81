"""Who is let in, who is refused, who leaves, and how the server ends."""

import asyncio
import base64
import contextlib
import errno
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
from llm.jobs import serve as serve_job
from llm.serve import Guarding, Served, connections
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


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1"])
def test_a_server_answers_at_the_address_that_it_listens_on(host):
    with serving(Served("tiny", small(), TOKENIZER), host=host) as address, httpx.Client() as client:
        port = httpx.URL(address).port
        own = {"Origin": address}
        assert client.get(f"{address}/v1/models", headers=own).status_code == 200
        for other in ("127.9.9.9", "[::2]", "evil.example"):
            strange = {"Host": f"{other}:{port}"}
            assert client.get(f"{address}/v1/models", headers=strange).status_code == 403, other


SITE = "https://chat.example.com"
CADDY = {"Host": "chat.example.com", "Origin": SITE}  # hands on what the browser sent
NGINX = {"Host": "127.0.0.1:8000", "Origin": SITE}  # puts the address of proxy_pass in the Host


def ask_models(guarding, headers, path="/v1/models"):
    with serving(Served("tiny", small(), TOKENIZER), guarding=guarding) as address:
        key = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.get(f"{address}{path}", headers=key | headers)
    return answer.status_code, answer.json().get("error", {}).get("code")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize(
    "headers", [CADDY, NGINX, {"Host": "chat.example.com"}], ids=["caddy", "nginx", "a program"]
)
def test_a_proxy_is_known_by_the_name_that_it_is_allowed(host, headers):
    assert ask_models(Guarding.of(host, KEY, ["Chat.example.com"]), headers) == (200, None)


def test_a_proxy_is_known_by_no_other_name():
    other = Guarding.of("127.0.0.1", KEY, ["other.example.com"])
    assert ask_models(other, CADDY) == (403, "host")
    assert ask_models(other, NGINX) == (403, "origin")
    assert ask_models(Guarding.of("0.0.0.0", KEY, ["other.example.com"]), NGINX) == (403, "origin")


def test_without_allowed_hosts_no_other_name_is_known():
    assert ask_models(Guarding.of("127.0.0.1", KEY), CADDY) == (403, "host")
    assert ask_models(Guarding.of("127.0.0.1", KEY), NGINX) == (403, "origin")
    assert ask_models(Guarding.of("0.0.0.0", KEY), CADDY) == (200, None)
    assert ask_models(Guarding.of("0.0.0.0", KEY), NGINX) == (403, "origin")


@pytest.mark.parametrize(
    "origin",
    ["https://chat.example.com:8443", "https://evil.example", "https://chat.example.com.evil.example", "null", "http://["],
)  # fmt: skip
def test_an_allowed_host_lets_no_other_origin_in(origin):
    guarding = Guarding.of("127.0.0.1", KEY, ["chat.example.com"])
    assert ask_models(guarding, {"Host": "127.0.0.1:8000", "Origin": origin}) == (403, "origin")
    with_port = Guarding.of("127.0.0.1", KEY, ["chat.example.com:8443"])
    there = {"Host": "chat.example.com:8443", "Origin": "https://chat.example.com:8443"}
    assert ask_models(with_port, there) == (200, None)


def test_health_answers_a_probe_by_any_name():
    guarding = Guarding.of("127.0.0.1", KEY, ["chat.example.com"])
    assert ask_models(guarding, {"Host": "10.0.3.17:8000", "Authorization": ""}, "/health") == (200, None)


def test_a_server_behind_a_proxy_needs_a_key():
    with pytest.raises(ConfigError, match=r"by chat\.example\.com\. Set api_key="):
        Guarding.of("127.0.0.1", None, ["chat.example.com"])


@pytest.mark.parametrize(
    "host",
    ["https://chat.example.com", "chat.example.com/", "*", "*.example.com", "a b", "", "a:", "a:b", "[::1"],
)
def test_what_is_no_host_cannot_be_allowed(host):
    with pytest.raises(ConfigError, match=r"allowed_hosts: .* as in chat.example.com"):
        Guarding.of("0.0.0.0", KEY, [host])


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


def test_no_connection_is_taken_before_the_models_are_loaded(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = []

    def loading(config):
        with socket.socket() as probe:
            found.append(probe.connect_ex(("127.0.0.1", port)))
        # Whoever begins to listen there meanwhile has the port.
        others.enter_context(socket.create_server(("127.0.0.1", port)))
        return [Served("tiny", small(), TOKENIZER)]

    monkeypatch.setattr(serve_job, "_models", loading)
    with contextlib.ExitStack() as others:
        assert main(["serve", "run=x", f"port={port}"]) == 2
    assert found == [errno.ECONNREFUSED]
    assert f"port={port}: Address already in use. Choose another port" in capsys.readouterr().err


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
    # What was refused wasn't read.
    read = 5 * len(TOKENIZER.encode(LONG["prompt"]))
    assert f'llm_tokens_total{{kind="read",model="slow"}} {read:.1f}' in slow_http.get("/metrics").text
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


HALF = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


def connected(address):
    url = httpx.URL(address)
    connection = socket.create_connection((url.host, url.port))
    connection.settimeout(5)
    return connection


@pytest.mark.parametrize("sent", [b"", HALF, HALF + b"\r\n"])
def test_connections_without_whole_headers_are_closed(monkeypatch, sent):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    with serving(Served("tiny", small(), TOKENIZER)) as address, contextlib.ExitStack() as stack:
        held = [stack.enter_context(connected(address)) for _ in range(50)]
        for connection in held:
            connection.sendall(sent)
        for connection in held if sent.endswith(b"\r\n\r\n") else ():  # now half of a second request
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(1000)
            connection.sendall(HALF)
        assert httpx.get(f"{address}/health").status_code == 200
        began = time.monotonic()
        assert [connection.recv(1000) for connection in held] == [b""] * 50
        assert time.monotonic() - began < 3
        assert httpx.get(f"{address}/health").status_code == 200


def test_headers_that_come_byte_by_byte_have_no_longer(monkeypatch):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    with serving(Served("tiny", small(), TOKENIZER)) as address, connected(address) as connection:
        connection.settimeout(0.05)
        for _ in range(40):
            with contextlib.suppress(TimeoutError):
                connection.sendall(b"G")
                if connection.recv(1000) == b"":
                    break
        else:
            pytest.fail("two seconds of bytes")


def test_an_answer_may_take_longer_than_headers(monkeypatch, slow, slow_http):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.2)
    assert slow_http.post("/v1/completions", json=long(max_tokens=100)).elapsed.total_seconds() > 0.8
    time.sleep(0.4)  # the connection stays for the next request, as uvicorn keeps it
    assert slow_http.post("/v1/completions", json=long(max_tokens=3)).status_code == 200


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
