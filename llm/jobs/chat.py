"""`llm chat`: turns typed in a terminal, answers written as they come."""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from llm import build
from llm.build import Config
from llm.config import Composed
from llm.config.check import check
from llm.config.schema import ChatConfig
from llm.config.words import nearest
from llm.errors import ConfigError, UserError
from llm.generation import (
    BatchEngine,
    PlainTemplate,
    Request,
    TextWriter,
    Token,
    is_decoder_lm,
    kind_of,
    template_of,
)
from llm.generation.context import check_fits, room_after
from llm.generation.text import token_text
from llm.jobs.conversations import Conversations
from llm.jobs.generate import SAMPLING_KEYS, sampling
from llm.jobs.runs import shortened
from llm.tokenizer import Tokenizer
from llm.train.progress import CONTROLS

# What a command does; the word in capitals is what it takes.
COMMANDS = {
    "/again": "ask the last question anew",
    "/tokens": "what else each token of the last answer might have been",
    "/set KEY=VALUE": "another temperature, max_new_tokens or whatever else says how it is written",
    "/new": "begin another conversation",
    "/chats": "list the conversations",
    "/open NUMBER": "go on with one of them",
    "/help": "list these",
}
SETTINGS = (*SAMPLING_KEYS, "max_new_tokens", "seed")
LIKELIEST = 5
TITLE = 60  # characters


def run(composed: Composed) -> int:
    """Answer until the input ends; returns the exit code."""
    config = composed.config
    talks = Conversations(Path(config["out"]) if config["out"] else None, config["system"])
    net, tokenizer = build.usable_model(config["run"], config["checkpoint"])
    if not is_decoder_lm(net):
        raise ConfigError(
            f"run={config['run']}: only a decoder chats, and this is {kind_of(net)}. Ask it by llm generate."
        )
    net = build.for_inference(net, config["precision"], rows=1)
    chat = Chat(BatchEngine(net, rows=1, speculate=config["speculate"]), tokenizer, config, talks)
    if isinstance(chat.template, PlainTemplate):
        print(
            "warning: this model was not trained to chat; turns are written as plain lines.", file=sys.stderr
        )
    if sys.stdin.isatty():
        print("Ctrl-C stops an answer, Ctrl-D ends; /help lists the commands.")
    terminal = Terminal(chat)
    for line in _lines():
        try:
            terminal.take(line)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
    return 0


class Chat:
    """Chats so far. The engine keeps what it has read of one, so that each turn costs its new tokens alone."""

    def __init__(
        self, engine: BatchEngine, tokenizer: Tokenizer, config: Config, talks: Conversations
    ) -> None:
        self._engine, self.tokenizer = engine, tokenizer
        self.config, self.talks = dict(config), talks
        self.template = template_of(tokenizer)
        self.written: list[Token] = []  # of the last answer

    def forget(self) -> bool:
        """Forget the last answer; whether there is a question before it."""
        turns = self.talks.turns
        if turns and turns[-1][0] == "assistant":
            turns.pop()
        return bool(turns) and turns[-1][0] == "user"

    def answer(self, text: str | None) -> Iterator[str]:
        """Yield the answer to `text`, or to the last question; what was said until the reader leaves is the turn.

        Raises:
            ConfigError: the chat no longer fits into the context.
            DataError: the model's template takes no such chat.
        """
        turns = self.talks.turns
        if text is not None:
            turns.append(("user", text))
        try:
            request = self._request()
        except UserError:
            turns.pop()
            raise
        said: list[str] = []
        writer = TextWriter(self.tokenizer, self.template.stops)
        self.written = []
        try:
            for token in self._engine.run([request]):
                self.written.append(token)
                said.append(piece := writer.take(token))
                yield piece
                if writer.stopped:
                    break
        finally:
            self._engine.cancel(request)
            turns.append(("assistant", "".join(said)))
            self.talks.save()

    def _request(self) -> Request:
        ids = self.template.encode(self.talks.turns)
        context = self._engine.model.config.context_length
        check_fits(context, len(ids), 1, what="The chat", advice="Begin another: /new")
        length = min(self.config["max_new_tokens"], room_after(ids, context))
        return Request(
            ids, length, sampling(self.config), self.config["seed"], self.template.stop_ids, LIKELIEST
        )


class Terminal:
    """What is typed, and what it does: a message is answered, a command obeyed."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._usage = {name.partition(" ")[0]: name for name in COMMANDS}
        self._does: dict[str, Callable[[str], None]] = {
            "/again": self._again,
            "/tokens": self._tokens,
            "/set": self._set,
            "/new": self._new,
            "/chats": self._chats,
            "/open": self._open,
            "/help": self._help,
        }

    def take(self, line: str) -> None:
        """Answer or obey a line.

        Raises:
            UserError: it can't be done; the chat is as it was.
        """
        word, _, rest = line.strip().partition(" ")
        # A path or the like is no command: those are letters alone.
        if not (word[:1] == "/" and word[1:].isalpha() and line[:1] == "/"):
            if line.strip():
                _show(self._chat.answer(line))
            return
        if word not in self._does:
            guess = nearest(word, self._does)
            hint = f"Did you mean {guess}?" if guess else "/help lists those that there are."
            raise ConfigError(
                f"{word}: there is no such command. {hint} A message begins with / behind a space."
            )
        if bool(rest.strip()) != (" " in self._usage[word]):
            raise ConfigError(f"Type {self._usage[word]}")
        self._does[word](rest.strip())

    def _again(self, _: str) -> None:
        if self._chat.forget():
            _show(self._chat.answer(None))

    def _tokens(self, _: str) -> None:
        for token in self._chat.written:
            if token.logprobs is not None:
                rest = [pair for pair in token.logprobs.top if pair[0] != token.id]
                ways = [self._way(*pair) for pair in [(token.id, token.logprobs.chosen), *rest]]
                print("  ".join([f"{ways[0]:<24}", *ways[1:]]))

    def _way(self, id_: int, logprob: float) -> str:
        text = json.dumps(token_text(self._chat.tokenizer, id_), ensure_ascii=False).translate(CONTROLS)
        return f"{math.exp(logprob):6.1%} {text}"

    def _set(self, rest: str) -> None:
        key, is_set, text = rest.partition("=")
        if not is_set or key not in SETTINGS:
            raise ConfigError(f"/set takes KEY=VALUE, of {', '.join(SETTINGS)}.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if problems := check({key: value}, ChatConfig):
            raise ConfigError(str(problems[0]))
        self._chat.config[key] = value

    def _new(self, _: str) -> None:
        self._chat.talks.begin()

    def _chats(self, _: str) -> None:
        for number, (is_open, title) in enumerate(self._chat.talks.titles, 1):
            print(f"{'*' if is_open else ' '} {number:>3}  {shortened(title, TITLE) or '(new)'}")

    def _open(self, rest: str) -> None:
        if not rest.isdecimal():
            raise ConfigError(f"Type {self._usage['/open']}")
        self._chat.talks.open(int(rest))
        for role, text in self._chat.talks.turns:
            print(f"{'> ' if role == 'user' else ''}{text}".translate(CONTROLS))

    def _help(self, _: str) -> None:
        for name, what in COMMANDS.items():
            print(f"  {name:<16}{what}")


def _lines() -> Iterator[str]:
    """What is typed, line by line, until the input ends."""
    typed = sys.stdin.isatty()
    if typed:
        # Its import alone gives input() a history and keys that move in the line.
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
    while True:
        try:
            # A terminal that isn't UTF-8 gives lone surrogates, which no tokenizer takes.
            yield input("> " if typed else "").encode(errors="replace").decode()
        except EOFError:
            return
        except KeyboardInterrupt:
            if not typed:
                raise
            # An answer may have ended just before the key was pressed.
            print("\nCtrl-D ends.")


def _show(pieces: Iterator[str]) -> None:
    """Print an answer as it comes; Ctrl-C stops it alone."""
    # A terminal obeys what a file only holds.
    controls = CONTROLS if sys.stdout.isatty() else {}
    try:
        for piece in pieces:
            print(piece.translate(controls), end="", flush=True)
    except KeyboardInterrupt:
        pieces.close()  # type: ignore[attr-defined]
    finally:
        print()
