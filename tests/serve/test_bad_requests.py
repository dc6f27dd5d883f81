"""Whatever is wrong with a request, the answer is a 4xx in OpenAI's shape within a second, and nobody else notices."""

import json
import sys
import threading
import time

import httpx
import pytest

GOOD = {"model": "tiny", "prompt": "a", "max_tokens": 2}
CHAT = {"model": "chatty", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
EMBED = {"model": "tiny", "input": "a"}
NAN, INFINITE = float("nan"), float("inf")
LONE = "\ud800"
DEEP = "[" * 900 + "]" * 900

NUMBERS = {
    "temperature": [-0.1, 2.1, NAN, INFINITE, -INFINITE, "1", True, [], {}, 10**400],
    "top_p": [-1, 1.1, NAN, INFINITE, "0.5", False, [0.5]],
    "top_k": [0, -1, 1.5, 2**31, NAN, "3", True],
    "min_p": [-0.1, 1.1, NAN, "0"],
    "repetition_penalty": [0, -1, 11, 1e-40, 5e-324, NAN, INFINITE, "1"],
    "frequency_penalty": [-2.1, 2.1, NAN, "0", True],
    "presence_penalty": [-2.1, 2.1, NAN, "0", True],
    "n": [0, -1, 9, 10**9, 1.5, "2", True, [1]],
    "max_tokens": [0, -5, 2**31, 10**6, 300, 1.5, "5", True, NAN],
    "seed": [2**63, -(2**63) - 1, 1.5, "1", NAN, 10**5000],
}
WORDS = {
    "stop": ["", [""], ["a"] * 5, 7, [1], {"a": 1}, LONE, [LONE], "x" * 257, [["a"]]],
    "stream": ["true", 1, "yes", []],
    "stream_options": [True, {"unknown": 1}, {"include_usage": "yes"}, []],
    "logit_bias": [
        {str(token): 1.0 for token in range(301)},
        {"a": 1},
        {"-1": 1},
        {"1.5": 1},
        {"999999": 1},
        {"9999999999": 1},
        {"1": 101},
        {"1": NAN},
        {"1": "5"},
        {"": 1},
        {"١": 1},
        [1, 2],
        {LONE: 1},
    ],
    "user": [5, LONE, {}],
    "model": ["", "other", None, 5, [], LONE, "x" * 300, "../../etc/passwd"],
    "unknown": [1, None],
    "temprature": [0.5],
    "\ud800": [1],
    "__proto__": [{}],
}
PROMPTS = [
    None, 5, 1.5, True, {}, [], [[]], [[], [1]], ["a", 1], [1, "a"], ["a"] * 17, [[1]] * 17, [-1], [2**31], [10**6], [1.5],
    [True], [None], LONE, ["a", LONE], "a" * 255, [1] * 300, {"a": "b"}, [["a"]], [[[1]]],
]  # fmt: skip
MESSAGES = [
    None, [], {}, "hi", [5], ["hi"], [{}], [{"role": "user"}], [{"content": "a"}], [{"role": "king", "content": "a"}],
    [{"role": "user", "content": 5}], [{"role": "user", "content": None}], [{"role": "user", "content": LONE}],
    [{"role": "user", "content": "a", "extra": 1}], [{"role": "user", "content": [{"type": "image_url"}]}],
    [{"role": "user", "content": [{"type": "text"}]}], [{"role": "user", "content": [{"type": "text", "text": 5}]}],
    [{"role": "user", "content": [{"type": "text", "text": "a"}] * 65}], [{"role": "user", "content": "a"}] * 1025,
    [{"role": "user", "content": "a" * 300}], [{"role": "user", "content": "a", "name": ""}],
    [{"role": LONE, "content": "a"}], [{"role": "tool", "content": "a", "tool_call_id": "b"}],
    [{"role": "assistant", "content": None}], [{"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}],
    [{"role": "assistant", "content": "a", "refusal": "b"}], [{"role": "assistant", "refusal": "b"}],
]  # fmt: skip
INPUTS = [None, 5, [], [[]], {}, ["a"] * 17, LONE, "a" * 257, [-1], [10**6], [True], [["a"]], ["a", 1]]


def cases():
    """Each case: a route and the bytes that are posted to it."""
    for key, values in {
        **NUMBERS,
        **WORDS,
        "logprobs": [-1, 21, True, "3"],
        "suffix": ["b", 5],
        "echo": [True, 0],
        "best_of": [2, "1"],
    }.items():
        for value in values:
            yield "completions", {**GOOD, key: value}
    for key, values in {
        "logprobs": [5, "true"],
        "top_logprobs": [-1, 21, 1.5],
        "max_completion_tokens": [0, -1, 500, "5"],
        "response_format": [
            {"type": "xml"},
            "json",
            {"type": "text", "more": 1},
            {"type": "json_schema"},
            {"type": "json_schema", "json_schema": {"name": "a"}},
            {"type": "json_schema", "json_schema": {"schema": [1]}},
            {"type": "json_schema", "json_schema": {"schema": {"type": "king"}}},
            {"type": "json_schema", "json_schema": {"schema": {"const": LONE}}},
            {
                "type": "json_schema",
                "json_schema": {"schema": {"properties": {LONE: {}}, "required": [LONE]}},
            },
            {"type": "json_object", "schema": {}},
            {"type": "json_object", "value": "a"},
            {"type": "json_object", "value": {"type": "king"}},
        ],
        "tools": [[{"type": "function", "function": {"name": "a"}}], {}],
        "tool_choice": ["required"],
        "functions": [[{"name": "a"}]],
        "store": [True, 0],
        "metadata": [{"a": "b"}],
        "modalities": [["text", "audio"]],
        "service_tier": ["flex"],
        "reasoning_effort": ["high"],
        "prompt_cache_key": [5, LONE],
        "chat_template": ["{{ 'a' * 10**9 }}"],
    }.items():
        for value in values:
            yield "chat/completions", {**CHAT, key: value}
    for prompt in PROMPTS:
        yield "completions", {**GOOD, "prompt": prompt}
    for messages in MESSAGES:
        yield "chat/completions", {**CHAT, "messages": messages}
    for given in INPUTS:
        yield "embeddings", {**EMBED, "input": given}
    yield "embeddings", {**EMBED, "encoding_format": "int8"}
    yield "embeddings", {**EMBED, "dimensions": 5}
    yield "chat/completions", {**CHAT, "model": "filler"}
    yield "completions", {"model": "filler", "prompt": "nothing hidden"}
    yield "completions", {"model": "translator", "prompt": "a" * 500}
    yield "completions", {"model": "translator", "prompt": "a", "max_tokens": 256}
    yield (
        "completions",
        {"model": "translator", "prompt": "a <mask>", "response_format": {"type": "json_object"}},
    )
    yield "completions", {"model": "reader", "prompt": "a question without a passage"}
    yield "completions", {"model": "translator", "prompt": ["a <mask>", "a"]}
    for body in ({}, {"model": "tiny"}, {"prompt": "a"}, [], [GOOD], "text", 5, True):
        yield "completions", body


RAW = [
    b"", b"{", b"{'model': 'tiny'}", b'{"model": "tiny", "prompt": "a",}', b"\xff\xfe", b'{"model": "\xff"}', b"null",
    DEEP.encode(), b'{"a":' * 900 + b"1" + b"}" * 900, b"[" * 200_000, b'{"prompt":' + DEEP.encode() + b"}",
    b'{"model": "tiny", "prompt": "a", "seed": ' + b"9" * 5000 + b"}", b'{"model": "tiny", "prompt": "a", "top_p": 1e999}',
    b'{"model": "tiny", "prompt": "a", "temperature": -Infinity}', b"\x00" * 100, b'{"model": "tiny", "prompt": "\\ud800"}',
    json.dumps({**GOOD, "prompt": "a" * 999_000}).encode(), json.dumps({**GOOD, "prompt": "a" * 1_000_000}).encode(),
    json.dumps({**GOOD, "logit_bias": {str(i): 1 for i in range(50_000)}}).encode(), b"x" * 3_000_000,
]  # fmt: skip


def posted():
    """All cases as bytes; a number beyond what Python prints is written by hand."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        found = [(path, json.dumps(body).encode()) for path, body in cases()]
    finally:
        sys.set_int_max_str_digits(limit)
    chats = [{"role": "user", "content": text} for text in ("a" * 990_000, "<|im_end|>" * 30_000)]
    found += [
        ("chat/completions", json.dumps({"model": "chatty", "messages": [chat]}).encode()) for chat in chats
    ]
    return found + [("completions", raw) for raw in RAW]


CASES = posted()


def post(http, path, body, **headers):
    return http.post(f"/v1/{path}", content=body, headers={"Content-Type": "application/json", **headers})


def check(answer):
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:200])
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert 0 < len(error["message"]) < 1000
    assert "Traceback" not in answer.text


def test_there_are_enough_cases():
    assert len(CASES) >= 150
    assert len(set(CASES)) == len(CASES)


@pytest.mark.parametrize(("path", "body"), CASES, ids=range(len(CASES)))
def test_a_bad_request_is_refused_soon(http, path, body):
    began = time.monotonic()
    answer = post(http, path, body)
    took = time.monotonic() - began
    check(answer)
    assert took < 1.0


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/v1/completions", {}, 405),
        ("PUT", "/v1/chat/completions", {}, 405),
        ("GET", "/nothing", {}, 404),
        ("GET", "/v1/models/other", {}, 404),
        ("GET", "/v1/models/%ff%00", {}, 404),
        ("GET", "/../../etc/passwd", {}, 404),
        ("POST", "/v1/completions", {"Content-Type": "text/plain"}, 400),
        ("POST", "/v1/completions", {"Content-Type": "multipart/form-data; boundary=x"}, 400),
        ("GET", "/v1/models", {"Host": "evil.example"}, 403),
        ("GET", "/v1/models", {"Host": "127.0.0.1.evil.example"}, 403),
        ("GET", "/v1/models", {"Host": "[::1"}, 403),
        ("GET", "/v1/models", {"Host": ""}, 403),
        ("GET", "/v1/models", {"Origin": "https://evil.example"}, 403),
        ("GET", "/v1/models", {"Origin": "null"}, 403),
        ("GET", "/v1/models", {"Origin": "http://127.0.0.1:1"}, 403),
        ("OPTIONS", "/v1/completions", {"Origin": "https://evil.example"}, 403),
    ],
)
def test_a_strange_request_is_refused(http, method, path, headers, status):
    answer = http.request(method, path, headers=headers, content=b"{}" if "Content-Type" in headers else None)
    check(answer)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_a_body_without_a_length_is_bounded_too(http):
    answer = http.post("/v1/completions", content=(b"x" * 10_000 for _ in range(200)))
    check(answer)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": 5e-324},
        {"temperature": 2},
        {"top_p": 0},
        {"top_p": 5e-324},
        {"min_p": 5e-324},
        {"min_p": 1},
        {"top_k": 2**31 - 1},
        {"repetition_penalty": 1e-6},
        {"repetition_penalty": 10},
        {"frequency_penalty": -2, "presence_penalty": -2},
        {"frequency_penalty": 5e-324},
        {"logit_bias": {"5": 5e-324, "6": -100}},
        {"logit_bias": {str(token): -100 for token in range(264)}},
        {"seed": 2**63 - 1},
        {"seed": -(2**63), "n": 8},
    ],
)
def test_what_lies_just_within_the_bounds_gives_a_text(setting, http):
    answer = post(http, "completions", json.dumps({**GOOD, "logprobs": 20, **setting}))
    assert answer.status_code == 200, answer.text


def test_a_healthy_stream_goes_on_meanwhile(server, http):
    ask = {"model": "tiny", "prompt": "healthy", "max_tokens": 200, "temperature": 0}
    alone = http.post("/v1/completions", json=ask).json()["choices"][0]["text"]
    texts, done = [], threading.Event()

    def healthy():
        with httpx.Client(base_url=server, timeout=30) as client:
            while not done.is_set() or not texts:
                texts.append(client.post("/v1/completions", json=ask).json()["choices"][0]["text"])

    thread = threading.Thread(target=healthy)
    thread.start()
    try:
        for path, body in CASES:
            check(post(http, path, body))
    finally:
        done.set()
        thread.join()
    assert set(texts) == {alone}
