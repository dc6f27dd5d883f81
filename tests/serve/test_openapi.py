"""schemathesis reads the server's own OpenAPI document, makes requests of it, right and wrong, and finds nothing."""

import json
import subprocess
import sys

import httpx
import pytest
from small_server import TOKENIZER, serving, small

from llm.serve import Guarding, Served
from llm.tokenizer.chat import CHATML

KEY = "sk-secret"
BEARER = f"Bearer {KEY}"
ENCODERS = {
    "topics": {"pooler": True, "labels": ("arts", "sports")},
    "namer": {"labels": ("O", "B-PER", "I-PER"), "labelled": "words"},
    "reader": {"labels": ("start", "end"), "labelled": "answer"},
}


def test_the_document_says_that_texts_may_stream(http):
    paths = http.get("/openapi.json").json()["paths"]
    for route in ("/v1/completions", "/v1/chat/completions", "/models/{name}"):
        kinds = paths[route]["post"]["responses"]["200"]["content"]
        assert kinds.keys() == {"application/json", "text/event-stream"}


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path):
    models = [
        Served("tiny", small(), TOKENIZER, waiting=1000),
        Served("chatty", small(), TOKENIZER.with_chat_template(CHATML), waiting=1000),
        Served(
            "translator", small(architecture="encoder_decoder", n_encoder_layers=2), TOKENIZER, waiting=1000
        ),
        *(
            Served(name, small(architecture="encoder", **changes), TOKENIZER, waiting=1000)
            for name, changes in ENCODERS.items()
        ),
    ]
    with serving(*models, guarding=Guarding(KEY)) as address:
        words = [
            "run",
            str(naming(models, address, tmp_path)),
            f"--url={address}",
            f"--header=Authorization: {BEARER}",
        ]
        words += ["--max-examples=40", "--seed=1", "--no-color", "--request-timeout=60"]
        # What the document allows may still be too long for the context, or 1.0 where JSON Schema calls that whole.
        words += ["--exclude-checks=positive_data_acceptance"]
        found = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", *words], cwd=tmp_path, capture_output=True, text=True
        )
        figures = httpx.get(f"{address}/metrics", headers={"Authorization": BEARER}).text
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    for route in ("completions", "chat/completions", "embeddings", "models"):
        assert f'llm_requests_total{{route="/v1/{route}",status="200"}}' in figures, figures


def naming(models, address, folder):
    """A file with the server's document that names its models: other names are a 404 before anything is done with them."""
    document = httpx.get(f"{address}/openapi.json", headers={"Authorization": BEARER}).json()
    names = {"enum": [served.name for served in models]}
    for schema in document["components"]["schemas"].values():
        if "model" in schema.get("properties", {}):
            schema["properties"]["model"] |= names
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "name":
                    parameter["schema"] |= names
    file = folder / "openapi.json"
    file.write_text(json.dumps(document))
    return file
