"""schemathesis reads the server's own OpenAPI document, makes requests of it, right and wrong, and finds nothing."""

import subprocess
import sys

import pytest
from small_server import TOKENIZER, serving, small

from llm.serve import Served


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path):
    others = {
        "topics": {"pooler": True, "labels": ("arts", "sports")},
        "namer": {"labels": ("O", "B-PER", "I-PER"), "labelled": "words"},
        "reader": {"labels": ("start", "end"), "labelled": "answer"},
    }
    models = [Served("tiny", small(), TOKENIZER, waiting=1000)] + [
        Served(name, small(architecture="encoder", **changes), TOKENIZER, waiting=1000)
        for name, changes in others.items()
    ]
    with serving(*models) as address:
        words = ["run", f"{address}/openapi.json", "--max-examples=40", "--seed=1", "--no-color"]
        # What the document allows may still be too long for the context, or 1.0 where JSON Schema calls that whole.
        words += ["--exclude-checks=positive_data_acceptance"]
        found = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", *words], cwd=tmp_path, capture_output=True, text=True
        )
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
