"""JSON by constrained decoding: a rule that leaves a model only tokens which keep its text to a schema.

Shapes: v vocabulary.
"""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from torch import Tensor

from llm.serve.errors import ApiError
from llm.serve.grammar_check import LIMITS
from llm.tokenizer import Tokenizer

MOST_BYTES = 32_000
CHECK = Path(__file__).with_name("grammar_check.py")
BUSY_SECONDS = 10.0  # after which not the schema is to blame, which may take 0.6 s of CPU time
MADE_AT_ONCE = 2  # grammars: each may take a core, and 1 GiB
# A model may put a space after a comma or colon, but not end its days writing spaces.
SPACE = " ?"
KEPT = 64  # schemas
TRIED = 256  # grammars


class Turns:
    """Who may make a grammar now: whoever wants one that is being made waits for it, and beyond a few nobody begins another."""

    def __init__(self, at_once: int) -> None:
        self._free = threading.BoundedSemaphore(at_once)
        self._of_schema: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._lock = threading.Lock()

    def of(self, schema: str) -> threading.Lock:
        """To be held while the grammar of this schema is looked up or made."""
        with self._lock:
            return self._of_schema.setdefault(schema, threading.Lock())

    @contextmanager
    def making(self) -> Iterator[None]:
        """To be held while a grammar is made; an ApiError where as many are as may be."""
        if not self._free.acquire(blocking=False):
            raise _busy("This server is preparing other schemas; try again.", seconds=1)
        try:
            yield
        finally:
            self._free.release()


TURNS = Turns(MADE_AT_ONCE)


class Grammars:
    """Makes grammars for the tokens of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        vocabulary = TokenizerWrapper(_Vocabulary(tokenizer))
        self._tokens = LLTokenizer(vocabulary, slices=LLTokenizer.json_slices())
        self._kept = lru_cache(KEPT)(self._made)

    def json(self, schema: Mapping[str, Any]) -> "Grammar":
        """The grammar of the JSON that `schema` allows.

        Raises:
            ApiError: it is no schema, asks for what isn't known here, or takes too much memory or time; 429 where others are
                being made.
        """
        try:
            text = json.dumps(schema)
        except RecursionError as error:
            raise _refused(str(error)) from None
        if len(text) > MOST_BYTES:
            raise _refused(f"it has {len(text)} bytes, and {MOST_BYTES} are allowed")
        with TURNS.of(text):
            made = self._kept(text)
        if isinstance(made, str):
            raise _refused(made)
        return Grammar(made.deep_copy())

    def _made(self, schema: str) -> LLMatcher | str:
        """The grammar of a schema, or why there is none: that is kept too, since to find it out takes as long."""
        with TURNS.making():
            try:
                grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": SPACE})
            except ValueError as error:  # it is nested too deep
                return str(error)
            if wrong := _tried(grammar):
                return wrong
            matcher = LLMatcher(self._tokens, grammar, log_level=0, limits=LIMITS)
            return matcher.get_error() if matcher.is_error() else matcher


@lru_cache(TRIED)
def _tried(grammar: str) -> str:
    """What is wrong with a grammar, made where it can do no harm, once for all tokenizers, which don't matter to what it takes."""
    try:
        tried = subprocess.run(
            [sys.executable, "-I", str(CHECK)],
            input=grammar,
            capture_output=True,
            text=True,
            timeout=BUSY_SECONDS,
        )
    except subprocess.TimeoutExpired:
        message = "This machine has too much to do to prepare the schema; try again."
        raise _busy(message, seconds=10) from None
    if tried.returncode == -signal.SIGPROF:
        return "it takes too long to prepare"
    if tried.returncode:
        return tried.stdout.strip() or "it takes too much memory to prepare"
    return ""


def _busy(why: str, seconds: int) -> ApiError:
    return ApiError(429, why, param="response_format", code="busy", Retry_After=str(seconds))


def _refused(why: str) -> ApiError:
    return ApiError(
        400, f"This schema can't be followed: {why.splitlines()[0][:300]!a}", param="response_format"
    )


class Grammar:
    """The rule for one text: it follows what is drawn."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher, self._read = matcher, 0

    def copy(self) -> "Grammar":
        """The rule for another text."""
        return Grammar(self._matcher.deep_copy())

    @property
    def complete(self) -> bool:
        """Whether what was drawn is whole: llguidance gives up where a step would take too long."""
        return bool(self._matcher.is_accepting()) and not self._matcher.is_error()

    def __call__(self, logits_1v: Tensor, new: Sequence[int]) -> Tensor:
        """Return the logits, minus infinity where a token would break the grammar."""
        self._matcher.consume_tokens(list(new[self._read :]))
        self._read = len(new)
        # One byte for each token of the tokenizer; a model's vocabulary may be filled up beyond them.
        allowed = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8) > 0
        allowed_v = torch.zeros(logits_1v.shape[-1], dtype=torch.bool)
        allowed_v[: len(allowed)] = allowed[: len(allowed_v)]
        return logits_1v.masked_fill(~allowed_v.to(logits_1v.device), -torch.inf)


class _Vocabulary:
    """A tokenizer as llguidance asks for it: the exact bytes of each id."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        special = tokenizer.special_tokens
        self.tokens = [tokenizer.decode_bytes([id_]) for id_ in range(tokenizer.vocab_size)]
        for name, id_ in special.items():
            self.tokens[id_] = name.encode()
        self.special_token_ids = sorted(special.values())
        self.eos_token_id, self.bos_token_id = tokenizer.end_of_text, None
        self._encode = tokenizer.encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)
