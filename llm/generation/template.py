"""How a chat becomes the tokens that a model goes on from: by its own template, else as plain lines; none comes from a request."""

from collections.abc import Sequence
from typing import Protocol

from llm.tokenizer import ChatTemplate, Tokenizer

NAMES = {"user": "User", "assistant": "Assistant"}
# What newer APIs call instructions.
ROLES = {"developer": "system"}

Turn = tuple[str, str]  # a role and its text


class Template(Protocol):
    """A way to write a chat down."""

    @property
    def stops(self) -> Sequence[str]:
        """The strings that end an answer."""

    @property
    def stop_ids(self) -> list[int]:
        """The ids that end an answer."""

    def encode(self, turns: Sequence[Turn]) -> list[int]:
        """The ids up to where the assistant's next text begins; a DataError where no such chat can be written."""


class PlainTemplate:
    """For models that were never trained to chat: turns as lines with a name, which the model goes on with."""

    stops = ("\nUser:",)

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.stop_ids = [tokenizer.end_of_text]

    def encode(self, turns: Sequence[Turn]) -> list[int]:
        """The ids of the turns as text, after the token that begins a document."""
        lines = [f"{NAMES[role]}: {text}" if role in NAMES else text for role, text in turns]
        return [self._tokenizer.end_of_text, *self._tokenizer.encode("\n".join([*lines, "Assistant:"]))]


class OwnTemplate:
    """The template that the model was trained with."""

    stops = ()

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._template = ChatTemplate(tokenizer)
        self.stop_ids = self._template.stop_ids

    def encode(self, turns: Sequence[Turn]) -> list[int]:
        """The ids of the turns and of the beginning of an answer."""
        return self._template.prompt(
            [{"role": ROLES.get(role, role), "content": text} for role, text in turns]
        )


def template_of(tokenizer: Tokenizer) -> Template:
    """The template that is kept with the tokenizer; else the plain one."""
    return PlainTemplate(tokenizer) if tokenizer.chat_template is None else OwnTemplate(tokenizer)
