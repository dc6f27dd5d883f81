import time

import pytest

from llm.redaction import REDACTED, redacted, redacted_text


def test_secrets_are_redacted_at_any_depth():
    config = {"logger": {"api_key": "hunter2", "items": [{"password": "p"}]}, "tokenizer": {"vocab_size": 9}}
    assert redacted(config) == {
        "logger": {"api_key": REDACTED, "items": [{"password": REDACTED}]},
        "tokenizer": {"vocab_size": 9},
    }


def test_all_that_stands_under_a_secret_key_is_redacted():
    assert redacted({"credentials": {"me": "x", "hosts": ["y"], "pin": 5}}) == {
        "credentials": {"me": REDACTED, "hosts": [REDACTED], "pin": REDACTED}
    }
    # Switches and the ids of tokens of text are no secrets.
    plain = {
        "use_token": True,
        "token": None,
        "mask_token": 3,
        "max_new_tokens": 4,
        "special_tokens": ["<a>"],
    }
    assert redacted(plain) == plain


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://me:p@host/x", "https://<redacted>@host/x"),
        ("s3://k:p/a@ss@host/x@1", "s3://<redacted>@1"),
        ("see x://a@h and y://:b@g", "see x://<redacted>@h and y://<redacted>@g"),
        ("https://h/x?token=a&v=1", "https://h/x?token=<redacted>&v=1"),
        ("https://h/x?X-Amz-Signature=a#b", "https://h/x?X-Amz-Signature=<redacted>#b"),
        ("https:/me:p@host/x", "https:/<redacted>@host/x"),  # as a path of a file
        ("C:/me@host/x", None),
        ("hf_" + "a" * 34, REDACTED),
        ("Authorization: Bearer abcd.efgh", f"Authorization: Bearer {REDACTED}"),
        ("https://h:80/x@1", None),
        ("s3://bucket/**/*.txt", None),
        ("def log_in(user, password=None):  # me@host", None),
    ],
)
def test_secrets_that_a_text_shows_are_redacted(text, wanted):
    assert redacted({"notes": [text]}) == {"notes": [wanted or text]}


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "a-" * 100_000, "a:/" * 70_000, "https://" * 20_000, "?a" * 100_000]
)
def test_a_long_text_is_read_once(text):
    start = time.process_time()
    assert redacted_text(text) == text
    assert time.process_time() - start < 1
