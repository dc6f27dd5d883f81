"""Answers kept to a JSON schema: whatever the weights, what ends by itself is what another library calls valid."""

import json
import random
import resource
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import jsonschema
import openai
import pytest
import torch
from huggingface_hub import InferenceClient
from small_server import small, wait_until

from llm.generation import BatchEngine, Request, Sampling
from llm.serve import grammar
from llm.serve.errors import ApiError
from llm.serve.grammar import MADE_AT_ONCE, MOST_BYTES, Grammars
from llm.tokenizer import ByteSpec, SentencePieceSpec

STDLIB = Path(sysconfig.get_paths()["stdlib"])
PERSON = {
    "type": "object",
    "properties": {
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["cat", "猫", "😀"]},
    },
    "required": ["age", "kind"],
    "additionalProperties": False,
}


def random_schema(draw, depth=0):
    """A schema of what people ask for; deeper ones hold leaves alone, so that texts end."""
    leaves = [
        lambda: {"type": "boolean"},
        lambda: {"type": "null"},
        lambda: {"type": "integer", "minimum": draw.randint(-50, 0), "maximum": draw.randint(1, 5000)},
        lambda: {"type": "number", "minimum": 0, "maximum": draw.randint(1, 9)},
        lambda: {"type": "string", "maxLength": draw.randint(0, 8)},
        lambda: {
            "type": "string",
            "pattern": draw.choice(["^[a-c]{1,4}$", "^\\d{3}-\\d{2}$", "^(é|猫|😀)+$"]),
        },
        lambda: {"enum": draw.sample(["a", "naïve", "😀", 3, None, True, 'q"uote', "back\\slash"], 3)},
        lambda: {"const": draw.choice(["x", 7, {"a": [1]}])},
        lambda: {"type": "string", "format": draw.choice(["date", "uuid", "ipv4"])},
    ]
    if depth == 3 or (depth and draw.random() < 0.5):
        return draw.choice(leaves)()
    inner = [random_schema(draw, depth + 1) for _ in range(draw.randint(1, 4))]
    properties = dict(zip(["name", "größe", "a b", "😀"], inner, strict=False))
    return draw.choice(
        [
            {"anyOf": inner},
            {
                "type": "array",
                "items": inner[0],
                "minItems": draw.randint(0, 2),
                "maxItems": draw.randint(2, 4),
            },
            {
                "type": "object",
                "properties": properties,
                "required": draw.sample(list(properties), draw.randint(0, len(properties))),
                "additionalProperties": False,
            },
            {"$defs": {"one": inner[0]}, "type": "array", "items": {"$ref": "#/$defs/one"}, "maxItems": 3}
            if depth == 0
            else {"type": "array", "items": inner[0], "maxItems": 3},
        ]
    )


@pytest.fixture(scope="module", params=["bytes", "bpe"])
def tokenizer(request):
    if request.param == "bytes":
        return ByteSpec().build()
    texts = [path.read_text(encoding="utf-8") for path in sorted((STDLIB / "json").glob("*.py"))]
    return SentencePieceSpec("bpe", 700).build(texts)


# Each byte alone is a token of the other tokenizer too.
@pytest.mark.parametrize("tokenizer", [pytest.param("bytes", marks=pytest.mark.slow), "bpe"], indirect=True)
def test_a_hundred_random_schemas_are_kept_to(tokenizer):
    draw = random.Random(0)
    schemas = [random_schema(draw) for _ in range(100)]
    grammars = Grammars(tokenizer)
    model = small(0, vocab_size=tokenizer.vocab_size, context_length=512)
    requests = {
        Request(
            [tokenizer.end_of_text],
            500,
            Sampling(),
            seed,
            [tokenizer.end_of_text],
            None,
            [grammars.json(schema)],
        ): schema
        for seed, schema in enumerate(schemas)
    }
    texts, ended = {request: [] for request in requests}, []
    for token in BatchEngine(model, rows=16).run(list(requests)):
        if token.finish == "stop":
            ended.append(token.request)
        else:
            texts[token.request].append(token.id)
    for request in ended:
        text = tokenizer.decode_bytes(texts[request]).decode()
        validator = jsonschema.Draft202012Validator(
            requests[request], format_checker=jsonschema.FormatChecker()
        )
        validator.validate(json.loads(text))
    assert len(ended) > 80


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


def test_a_schema_by_the_official_client_streamed_or_not(client):
    format_ = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
    messages = [{"role": "user", "content": "Who?"}]
    ask = {"model": "chatty", "messages": messages, "max_tokens": 100, "seed": 3, "response_format": format_}
    whole = client.chat.completions.create(**ask).choices[0]
    assert whole.finish_reason == "stop"
    jsonschema.validate(json.loads(whole.message.content), PERSON)
    chunks = client.chat.completions.create(**ask, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content
    several = client.chat.completions.create(**{**ask, "n": 4, "temperature": 1.5})
    for choice in several.choices:
        jsonschema.validate(json.loads(choice.message.content), PERSON)
    by_ids = client.completions.create(
        model="tiny", prompt=["a", "b"], max_tokens=100, extra_body={"response_format": format_}
    )
    for choice in by_ids.choices:
        jsonschema.validate(json.loads(choice.text), PERSON)


def test_any_json_object(client, server):
    ask = {"model": "chatty", "messages": [{"role": "user", "content": "a"}], "max_tokens": 150}
    found = [
        client.chat.completions.create(**ask, seed=seed, response_format={"type": "json_object"}).choices[0]
        for seed in range(8)
    ]
    assert all(choice.message.content.startswith("{") for choice in found)
    ended = [json.loads(choice.message.content) for choice in found if choice.finish_reason == "stop"]
    assert all(isinstance(value, dict) for value in ended)
    assert ended
    theirs = InferenceClient(base_url=f"{server}/v1", api_key="none").chat_completion(
        **ask, seed=1, response_format={"type": "json_object"}
    )
    assert theirs.choices[0].message.content == found[1].message.content


def deep(levels):
    return {"type": "object", "properties": {"a": deep(levels - 1)}} if levels else {"type": "null"}


BAD = {
    "no type": {"type": "king"},
    "type of a number": {"type": 5},
    "unknown reference": {"$ref": "#/$defs/nothing"},
    "a reference elsewhere": {"$ref": "https://evil.example/schema.json"},
    "a pattern that is none": {"type": "string", "pattern": "("},
    "a pattern that looks ahead": {"type": "string", "pattern": "(?=a)b"},
    "a keyword that can't be kept to": {"type": "object", "propertyNames": {"pattern": "^a"}},
    "no value": {"type": "integer", "minimum": 5, "maximum": 1},
    "too large": {"enum": ["x" * MOST_BYTES]},
    "many intersections": {
        "allOf": [{"type": "string", "pattern": f"(a|b)*a(a|b){{{i}}}"} for i in range(60)]
    },
    "deep": deep(300),
}


def cpu_seconds():
    """What this process, in which the server runs, and its children have taken: the clock tells what else the machine does."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_schema_is_refused_soon(http, name):
    format_ = {"type": "json_schema", "json_schema": {"schema": BAD[name]}}
    body = {"model": "chatty", "messages": [{"role": "user", "content": "a"}], "response_format": format_}
    before = cpu_seconds()
    answer = http.post("/v1/chat/completions", json={**body, "max_tokens": 3})
    assert cpu_seconds() - before < 1
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(a{1,1000}){1,1000}"},
        {"anyOf": [{"type": "string", "pattern": f"^.*{i}.*x{{9,99}}$"} for i in range(400)]},
        {
            "type": "array",
            "items": {"anyOf": [{"type": "string", "pattern": f"(a|b)*a(a|b){{{i}}}"} for i in range(60)]},
        },
    ],
    ids=["repetition", "alternatives", "intersections later"],
)
def test_a_costly_schema_hinders_nobody(http, schema):
    format_ = {"type": "json_schema", "json_schema": {"schema": schema}}
    body = {"model": "chatty", "messages": [{"role": "user", "content": "a"}], "response_format": format_}
    answer = http.post("/v1/chat/completions", json={**body, "max_tokens": 30})
    assert answer.status_code in (200, 400)
    assert answer.elapsed.total_seconds() < 5
    assert http.post("/v1/completions", json={"model": "chatty", "prompt": "a"}).status_code == 200


def costly(number):
    """A schema that takes as long as one may, and is refused."""
    return {"allOf": [{"type": "string", "pattern": f"(a|b)*a(a|b){{{i}}}{number}"} for i in range(60)]}


def test_many_costly_schemas_at_once_hold_nobody_up(http, server):
    def ask(schema):
        format_ = {"type": "json_schema", "json_schema": {"schema": schema}}
        body = {"model": "chatty", "messages": [{"role": "user", "content": "a"}], "response_format": format_}
        with httpx.Client(base_url=server, timeout=60) as other:
            return other.post("/v1/chat/completions", json={**body, "max_tokens": 1})

    with ThreadPoolExecutor(40) as pool:
        costs = [pool.submit(ask, costly(number)) for number in range(40)]
        healthy = 0
        while not all(cost.done() for cost in costs):
            assert http.post("/v1/completions", json={"model": "chatty", "prompt": "a"}).status_code == 200
            healthy += 1
    assert healthy > 3
    assert {cost.result().status_code for cost in costs} == {400, 429}


def test_a_schema_is_tried_once_whoever_asks_and_others_are_told_to_come_again(monkeypatch):
    tried, go_on = [], threading.Event()

    def slow(text):
        tried.append(text)
        assert go_on.wait(20)
        return "it is costly"

    monkeypatch.setattr(grammar, "_tried", slow)
    made = Grammars(ByteSpec().build(()))
    with ThreadPoolExecutor(12) as pool:
        same = [pool.submit(made.json, {"const": number}) for number in (0, 1) for _ in range(6)]
        wait_until(lambda: len(tried) == MADE_AT_ONCE == 2)
        with pytest.raises(ApiError, match="other schemas") as refused:
            made.json({"const": 2})
        assert refused.value.status == 429
        go_on.set()
        assert {str(one.exception()) for one in same} == {"This schema can't be followed: 'it is costly'"}
    with pytest.raises(ApiError, match="it is costly"):
        made.json({"const": 1})
    assert len(tried) == 2
    with pytest.raises(ApiError, match="it is costly"):
        made.json({"const": 2})


def test_a_text_that_had_to_be_given_up_is_not_called_whole():
    grammar = Grammars(ByteSpec().build()).json({"type": "integer"})
    grammar(torch.zeros(1, 300), ByteSpec().build().encode("12"))
    assert grammar.complete
    grammar(torch.zeros(1, 300), ByteSpec().build().encode("12x"))
    assert not grammar.complete


def test_models_that_respond_whole_write_no_json(http):
    body = {"model": "judge", "prompt": "a", "response_format": {"type": "json_object"}}
    refused = http.post("/v1/completions", json=body)
    assert refused.status_code == 400
    assert "judge tells labels or fills in what a text hides" in refused.json()["error"]["message"]
