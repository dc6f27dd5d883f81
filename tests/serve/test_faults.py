"""A refusal names the field as it was written, and what is wrong with it, in words that say nothing of our types."""

import json

import httpx
import pytest
from small_server import TOKENIZER, serving, small

from llm.serve import Served

SAY = [{"role": "user", "content": "a"}]
PROMPT = "it must be a text, a list of token ids, or a list of 1 to 16 of either"
CONTENT = "it must be a text or a list of text parts"
STOP = "it must be a text or a list of at most 4 texts"
INPUTS = "it must be a text, a list of texts, or a question with its context"
NO_TOOLS = "no model here calls tools"


@pytest.mark.parametrize(
    ("path", "body", "where", "what"),
    [
        ("completions", {"stop": 5}, "stop", STOP),
        ("completions", {"stop": {"a": 1}}, "stop", STOP),
        ("completions", {"stop": ["a", 5]}, "stop.1", "Input should be a valid string"),
        ("completions", {"stop": ""}, "stop", "String should have at least 1 character"),
        ("completions", {"stop": ["\ud800"]}, "stop.0", "the text holds a lone surrogate, which is no valid Unicode"),
        ("completions", {"prompt": 5}, "prompt", PROMPT),
        ("completions", {"prompt": []}, "prompt", PROMPT),
        ("completions", {"prompt": ["a"] * 17}, "prompt", "List should have at most 16 items after validation, not 17"),
        ("completions", {"prompt": [[1]] * 17}, "prompt", "List should have at most 16 items after validation, not 17"),
        ("completions", {"prompt": [1, "a"]}, "prompt.1", "Input should be a valid integer"),
        ("completions", {"prompt": ["a", 1]}, "prompt.1", "Input should be a valid string"),
        ("completions", {"prompt": [[1], [-1]]}, "prompt.1.0", "Input should be greater than or equal to 0"),
        ("completions", {"prompt": "\ud800"}, "prompt", "the text holds a lone surrogate, which is no valid Unicode"),
        ("completions", {"logit_bias": {"a": 1}}, "logit_bias.a", "String should match pattern '^[0-9]{1,9}$'"),
        ("completions", {"stream_options": True}, "stream_options", "it must be a JSON object"),
        ("completions", {"temprature": 1}, "temprature", "Extra inputs are not permitted"),
        ("completions", {"echo": True}, "echo", "the prompt isn't repeated before its completion; leave it out, or send false"),
        ("completions", {"suffix": "b"}, "suffix", 'a completion goes on from its prompt alone; leave it out, or send ""'),
        ("completions", {"best_of": 3}, "best_of", "as many texts are written as n says, and all are given; leave it out, or send 1"),
        ("completions", {"n": 9}, "n", "Input should be less than or equal to 8"),
        ("chat/completions", {"messages": ["a"]}, "messages.0", "it must be a JSON object"),
        ("chat/completions", {"messages": [*SAY, {"role": "user"}]}, "messages.1.content", "Field required"),
        ("chat/completions", {"messages": [{"role": "assistant", "content": None}]}, "messages.0.content", CONTENT),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}]},
            "messages.0.content.0.type",
            "Input should be 'text'",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}]},
            "messages.0.tool_calls",
            f"{NO_TOOLS}; leave it out, or send []",
        ),
        (
            "chat/completions",
            {"messages": [*SAY, {"role": "tool", "content": "a", "tool_call_id": "b"}]},
            "messages.1.role",
            f"{NO_TOOLS}, so that none has an answer to read; put it into a user's message",
        ),
        ("chat/completions", {"tools": [{"type": "function"}]}, "tools", f"{NO_TOOLS}; leave it out, or send []"),
        ("chat/completions", {"tool_choice": "required"}, "tool_choice", f'{NO_TOOLS}; leave it out, or send "none"'),
        ("chat/completions", {"store": True}, "store", "nothing is stored here; leave it out, or send false"),
        ("chat/completions", {"response_format": "json"}, "response_format", "it must be a JSON object"),
        ("chat/completions", {"response_format": {}}, "response_format", "it needs a 'type'"),
        ("chat/completions", {"response_format": {"type": "xml"}}, "response_format", "its 'type' must be one of 'text', 'json_object', 'json_schema'"),
        ("chat/completions", {"response_format": {"type": "json_schema"}}, "response_format.json_schema", "Field required"),
        (
            "chat/completions",
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
            "Field required",
        ),
        ("embeddings", {"input": {}}, "input", PROMPT),
        ("embeddings", {"dimensions": 5}, "dimensions", "a vector is as long as its model makes it; leave it out"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field_and_the_fault(path, body, where, what, http):
    good = {
        "completions": {"prompt": "a"},
        "chat/completions": {"messages": SAY},
        "embeddings": {"input": "a"},
    }
    raw = json.dumps({"model": "tiny", **good[path], **body})
    answer = http.post(f"/v1/{path}", content=raw, headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["message"], error["param"]) == (400, f"{where}: {what}", where)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"inputs": 5}, f"inputs: {INPUTS}"),
        ({"inputs": ["a", 5]}, "inputs.1: Input should be a valid string"),
        ({"inputs": {"question": "a"}}, "inputs.context: Field required"),
        ({"inputs": {"question": 5, "context": "a"}}, "inputs.question: Input should be a valid string"),
        ({}, "inputs: Field required"),
        (
            {"inputs": "a", "parameters": {"grammar": {"type": "regex", "value": "a"}}},
            "parameters.grammar: its 'type' must be one of 'json', 'json_schema'",
        ),
        (
            {"inputs": "a", "parameters": {"watermark": True}},
            "parameters.watermark: no text gets a watermark; leave it out, or send false",
        ),
    ],
)
def test_hugging_faces_shapes_name_it_too(body, told, http):
    assert http.post("/models/tiny", json=body).json() == {"error": told}


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "body: Field required"),
        (b"[]", "body: it must be a JSON object"),
        (b"{", "body: it is no JSON: Expecting property name enclosed in double quotes"),
    ],
)
def test_a_body_that_is_no_object_is_named_as_a_whole(raw, told, http):
    error = http.post("/v1/completions", content=raw, headers={"Content-Type": "application/json"}).json()[
        "error"
    ]
    assert (error["message"], error["param"]) == (told, None)


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}])
def test_what_is_not_sent_as_json_is_told_how_to_be(headers, http):
    error = http.post("/v1/completions", content=b'{"model": "tiny", "prompt": "a"}', headers=headers).json()[
        "error"
    ]
    assert error["message"] == "body: it must be JSON, with the header Content-Type: application/json"


def test_the_name_of_a_field_may_be_of_any_length(http):
    error = http.post("/v1/completions", json={"model": "tiny", "prompt": "a", "x" * 9000: 1}).json()["error"]
    assert error["param"] == "x" * 200


def test_where_one_model_is_served_it_needs_no_name():
    with serving(Served("mine", small(), TOKENIZER)) as address, httpx.Client(base_url=address) as http:
        for name in ({}, {"model": None}, {"model": "dummy"}, {"model": "mine"}):
            assert (
                http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1, **name}).json()["model"]
                == "mine"
            )
            assert http.post("/v1/embeddings", json={"input": "a", **name}).json()["model"] == "mine"
        assert http.post("/v1/completions", json={"prompt": "a", "model": "other"}).status_code == 404


def test_where_several_are_served_one_must_be_named(http):
    answer = http.post("/v1/completions", json={"prompt": "a"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(
        "model: several are served; name one of them. There is: tiny, "
    )
    assert http.post("/v1/completions", json={"prompt": "a", "model": "dummy"}).status_code == 404
