"""`llm chat`: turns typed in a terminal, answers written as they come."""

import sys
from collections.abc import Iterator
from typing import Any

from llm import build
from llm.build import Config
from llm.errors import ConfigError, UserError
from llm.generation import BatchEngine, PlainTemplate, Request, TextWriter, template_of
from llm.generation.template import Turn
from llm.jobs.generate import sampling
from llm.tokenizer import Tokenizer

AGAIN, NEW = "/again", "/new"


def run(config: Config, choices: dict[str, Any]) -> int:
    """Answer until the input ends; returns the exit code."""
    net, tokenizer = build.usable_model(config["run"], config["checkpoint"])
    net = build.for_inference(net, config["precision"], rows=1)
    chat = Chat(BatchEngine(net, rows=1, speculate=config["speculate"]), tokenizer, config)
    if isinstance(chat.template, PlainTemplate):
        print(
            "warning: this model was not trained to chat; turns are written as plain lines.", file=sys.stderr
        )
    for line in _lines():
        if line == NEW:
            chat.begin()
        elif line.strip() and (line != AGAIN or chat.forget()):
            _show(chat.answer(None if line == AGAIN else line))
    return 0


class Chat:
    """A chat so far. The engine keeps what it has read of it, so that each turn costs its new tokens alone."""

    def __init__(self, engine: BatchEngine, tokenizer: Tokenizer, config: Config) -> None:
        self._engine, self._tokenizer, self._config = engine, tokenizer, config
        self.template = template_of(tokenizer)
        self.turns: list[Turn] = []
        self.begin()

    def begin(self) -> None:
        """Forget everything but the instructions."""
        self.turns = [("system", self._config["system"])] if self._config["system"] else []

    def forget(self) -> bool:
        """Forget the last answer; whether there is a question before it."""
        if self.turns and self.turns[-1][0] == "assistant":
            self.turns.pop()
        return bool(self.turns) and self.turns[-1][0] == "user"

    def answer(self, text: str | None) -> Iterator[str]:
        """Yield the answer to `text`, or to the last question; what was said until the reader leaves is the turn.

        Raises:
            ConfigError: the chat no longer fits into the context.
            DataError: the model's template takes no such chat.
        """
        if text is not None:
            self.turns.append(("user", text))
        said: list[str] = []
        request = self._request()
        writer = TextWriter(self._tokenizer, self.template.stops)
        try:
            for token in self._engine.run([request]):
                piece = writer.finish() if token.finish == "stop" else writer.add(token.id)
                said.append(piece)
                yield piece
                if writer.stopped:
                    break
            said.append(rest := writer.finish())
            yield rest
        finally:
            self._engine.cancel(request)
            self.turns.append(("assistant", "".join(said)))

    def _request(self) -> Request:
        ids = self.template.encode(self.turns)
        context = self._engine.model.config.context_length
        if len(ids) >= context:
            self.turns.pop()
            raise ConfigError(
                f"The chat has {len(ids)} tokens, and the model sees {context}. Begin another: {NEW}"
            )
        length = min(self._config["max_new_tokens"], context - len(ids))
        stop_ids = self.template.stop_ids
        return Request(ids, length, sampling(self._config), self._config["seed"], stop_ids)


def _lines() -> Iterator[str]:
    """What is typed, line by line, until the input ends."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            # A terminal that isn't UTF-8 gives lone surrogates, which no tokenizer takes.
            yield input(prompt).encode(errors="replace").decode()
        except EOFError:
            return


def _show(pieces: Iterator[str]) -> None:
    """Print an answer as it comes; Ctrl-C stops it alone."""
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pieces.close()  # type: ignore[attr-defined]
    except UserError as error:
        print(f"error: {error}", end="", file=sys.stderr)
    print()
