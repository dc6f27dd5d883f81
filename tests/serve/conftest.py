"""One server for all tests of this folder."""

import httpx
import pytest
from small_server import TOKENIZER, serving, small

from llm.serve import Served
from llm.tokenizer.chat import CHATML, PAIR, with_end

TAGS = ("O", "B-PER", "I-PER", "B-disease", "I-disease")


@pytest.fixture(scope="session")
def models():
    return {
        "tiny": Served("tiny", small(), TOKENIZER, rows=4),
        "chatty": Served("chatty", small(1), TOKENIZER.with_chat_template(CHATML), rows=4),
        "joiner": Served("joiner", small(8), TOKENIZER.with_chat_template(with_end(PAIR, TOKENIZER)), rows=4),
        "filler": Served("filler", small(2, architecture="encoder"), TOKENIZER),
        "judge": Served(
            "judge", small(4, architecture="encoder", pooler=True, labels=("good", "bad")), TOKENIZER
        ),
        "topics": Served(
            "topics",
            small(5, architecture="encoder", pooler=True, labels=("arts", "politics", "sports")),
            TOKENIZER,
        ),
        "namer": Served(
            "namer",
            small(6, architecture="encoder", labels=TAGS, labelled="words"),
            TOKENIZER,
        ),
        "reader": Served(
            "reader",
            small(7, architecture="encoder", labels=("start", "end"), labelled="answer"),
            TOKENIZER,
        ),
        "translator": Served(
            "translator", small(3, architecture="encoder_decoder", n_encoder_layers=2), TOKENIZER
        ),
    }


@pytest.fixture(scope="session")
def server(models):
    with serving(*models.values()) as address:
        yield address


@pytest.fixture(scope="session")
def http(server):
    with httpx.Client(base_url=server, timeout=30) as client:
        yield client
