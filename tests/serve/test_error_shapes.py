"""Errors in the shape of the API that was asked: of its route, or before there is one of its path."""

import httpx
import pytest
from small_server import TOKENIZER, serving, small

from llm.serve import Guarding, Served
from llm.serve.errors import route_by_path
from llm.serve.routes import google, huggingface, openai

OPENAI, GOOGLE = {"message", "type", "param", "code"}, {"code", "message", "status"}


def shape(answer):
    """The keys of an error; of Hugging Face's, which is a text, none."""
    error = answer.json()["error"]
    return set() if isinstance(error, str) else error.keys()


# A name may look like the path of another API.
@pytest.mark.parametrize(
    ("method", "path", "status", "keys"),
    [
        ("GET", "/v1/models/documents:x", 404, OPENAI),
        ("POST", "/v1/models/documents:x", 405, OPENAI),
        ("GET", "/v1/completions", 405, OPENAI),
        ("POST", "/v1/completions", 400, OPENAI),
        ("GET", "/v1/documents:classifyText", 405, GOOGLE),
        ("POST", "/models/tiny/v1/documents:translate", 404, GOOGLE),
        ("POST", "/models/other/v1/documents:classifyText", 404, GOOGLE),
        ("GET", "/models/tiny", 405, set()),
        ("POST", "/models/tiny", 400, set()),
        ("GET", "/nothing", 404, OPENAI),
        ("GET", "/v1/documents:", 404, GOOGLE),
        ("GET", "/models/a/b", 404, set()),
    ],
)
def test_errors_have_the_shape_of_their_route(http, method, path, status, keys):
    answer = http.request(method, path, json={} if method == "POST" else None)
    assert (answer.status_code, shape(answer)) == (status, keys)


def test_what_the_guard_refuses_has_the_shape_of_its_path():
    tiny = Served("tiny", small(), TOKENIZER)
    paths = {"/v1/completions": OPENAI, "/v1/documents:classifyText": GOOGLE, "/models/tiny": set()}
    with serving(tiny, guarding=Guarding("secret")) as address:
        for path, keys in paths.items():
            answer = httpx.post(f"{address}{path}", json={})
            assert (answer.status_code, shape(answer)) == (401, keys)


def test_paths_tell_the_shape_that_their_routes_name():
    prefixes = {openai: [""], google: ["", "/models/{name}"], huggingface: [""]}
    for api, places in prefixes.items():
        kinds = {type(route) for route in api.router.routes}
        assert len(kinds) == 1
        assert kinds == {route_by_path(place + route.path) for place in places for route in api.router.routes}
