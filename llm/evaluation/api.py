"""Asking an OpenAI-compatible endpoint: the client, the answers that are kept, and what they cost."""

import importlib.util
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm.errors import ConfigError, DataError, missing_package
from llm.evaluation.kept import Answer, Kept, in_parallel
from llm.redaction import REDACTED, redacted_text

# What OpenAI's API takes; a text is cut at the others when it has come.
MOST_STOPS = 4


@dataclass(frozen=True)
class Ask:
    """What is asked once: a prompt, how long the answer may be, where it ends, and how it is drawn."""

    prompt: str
    max_tokens: int
    stops: tuple[str, ...] = ()
    temperature: float = 0.0


@dataclass
class Usage:
    """What was asked so far: requests, those of them that were answered before, and tokens of all."""

    requests: int = 0
    kept: int = 0
    read: int = 0
    written: int = 0
    read_now: int = 0
    written_now: int = 0

    def add(self, usage: dict[str, int], kept: bool) -> None:
        """Count an answer."""
        self.requests += 1
        self.read += usage["prompt_tokens"]
        self.written += usage["completion_tokens"]
        if kept:
            self.kept += 1
        else:
            self.read_now += usage["prompt_tokens"]
            self.written_now += usage["completion_tokens"]


@dataclass
class Endpoint:
    """An endpoint and a model of it; answers are kept in a folder under the hash of what was asked.

    The key comes from an environment variable, and goes nowhere but to the endpoint.

    Args:
        model: its name there.
        answers: the folder; None keeps nothing.
        base_url: its address; None is OpenAI's own.
        key_env: the variable that holds the key; None for an endpoint that needs none.
        kind: the prompt is a user's message of a chat, or a text to go on from.
        length_key: what the endpoint calls the most tokens of an answer.
        concurrency: requests at a time.
        max_retries: of a request that fails with 408, 409, 429 or 5xx, or gets no answer in time; the client waits as the
            endpoint's Retry-After says, or longer each time.
        timeout: seconds to wait for an answer.
        price_in: of a million tokens read, in whatever currency.
        price_out: of a million tokens written.
    """

    model: str
    answers: Path | None = None
    base_url: str | None = None
    key_env: str | None = "OPENAI_API_KEY"
    kind: str = "chat"
    length_key: str = "max_tokens"
    concurrency: int = 4
    max_retries: int = 8
    timeout: float = 60.0
    price_in: float | None = None
    price_out: float | None = None
    usage: Usage = field(default_factory=Usage, init=False)

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("api.model: this is needed; add api.model=<what the endpoint calls it>.")
        if importlib.util.find_spec("openai") is None:
            raise missing_package("model=api", "openai", "api")
        import openai

        self._key = self._read_key()
        self._client = openai.OpenAI(
            base_url=self.base_url, api_key=self._key, max_retries=self.max_retries, timeout=self.timeout
        )

    def _read_key(self) -> str:
        if self.key_env is None:
            return "none"
        if not (key := os.environ.get(self.key_env, "").strip()):
            raise ConfigError(
                f"model=api: the environment has no {self.key_env}. Set it to the endpoint's key, name another variable by "
                "api.key_env=, or write api.key_env=null for an endpoint that needs none."
            )
        return key

    def answer(self, asks: Sequence[Ask]) -> list[str]:
        """The answers, each as it was kept, or asked for now.

        Raises:
            ConfigError: the endpoint refuses the key, the model or the request.
            DataError: it gives no answer; those so far are kept.
        """
        numbered = _distinct(asks)
        found = in_parallel(self._answered, list(dict.fromkeys(numbered)), self.concurrency)
        for answer, kept in found.values():
            self.usage.add(answer["usage"], kept)
        return [found[one][0]["text"] for one in numbered]

    def _request(self, ask: Ask) -> dict[str, Any]:
        prompt: dict[str, Any] = (
            {"messages": [{"role": "user", "content": ask.prompt}]}
            if self.kind == "chat"
            else {"prompt": ask.prompt}
        )
        return {
            "model": self.model,
            **prompt,
            self.length_key: ask.max_tokens,
            "temperature": ask.temperature,
            **({"stop": list(ask.stops[:MOST_STOPS])} if ask.stops else {}),
        }

    def _answered(self, numbered: tuple[Ask, int]) -> tuple[Answer, bool]:
        """An answer with its usage, and whether it was kept before."""
        ask, number = numbered
        request = self._request(ask)
        address = redacted_text(str(self._client.base_url))
        asked = {"base_url": address, "kind": self.kind, "number": number, "request": request}
        return Kept(self.answers).answer(asked, lambda: self._ask(request))

    def _ask(self, request: dict[str, Any]) -> Answer:
        import openai

        try:
            if self.kind == "chat":
                chat = self._client.chat.completions.create(**request)
                text, usage = chat.choices[0].message.content, chat.usage
            else:
                completion = self._client.completions.create(**request)
                text, usage = completion.choices[0].text, completion.usage
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise ConfigError(f"model=api: the endpoint refuses the key: {self._said(error)}") from None
        except (openai.NotFoundError, openai.BadRequestError, openai.UnprocessableEntityError) as error:
            raise ConfigError(f"model=api: the endpoint refuses the request: {self._said(error)}") from None
        except openai.OpenAIError as error:
            raise DataError(
                f"model=api: {self.model} gives no answer after {self.max_retries} retries: {self._said(error)} What was "
                "answered is kept: the same command goes on from there."
            ) from None
        counts = {name: getattr(usage, name, 0) or 0 for name in ("prompt_tokens", "completion_tokens")}
        return {"text": text or "", "usage": counts}

    def _said(self, error: Exception) -> str:
        """What the endpoint said, without the key that it may have said too."""
        said = " ".join(str(error).replace(self._key, REDACTED).split())
        return f"{type(error).__name__}: {redacted_text(said)[:500]}"

    def cost(self) -> str:
        """What was asked and what it cost, in a line."""
        usage = self.usage
        line = (
            f"{self.model}: {usage.requests:,} requests, {usage.kept:,} of them answered before; {usage.read:,} tokens read, "
            f"{usage.written:,} written"
        )
        if self.price_in is None and self.price_out is None:
            return f"{line} (api.price_in and api.price_out, of a million tokens, tell the cost)"
        return f"{line}; {self._price(usage.read, usage.written)}, of which {self._price(usage.read_now, usage.written_now)} now"

    def _price(self, read: int, written: int) -> str:
        return f"{(read * (self.price_in or 0.0) + written * (self.price_out or 0.0)) / 1e6:.4f}"


def _distinct(asks: Sequence[Ask]) -> list[tuple[Ask, int]]:
    """What is drawn by chance is asked anew each time that it comes, by its number, and what isn't once."""
    seen: Counter[Ask] = Counter()
    numbered = []
    for ask in asks:
        numbered.append((ask, seen[ask] if ask.temperature else 0))
        seen[ask] += 1
    return numbered
