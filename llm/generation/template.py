"""How a chat becomes the tokens that a model goes on from; the only templates are these, and none comes from a request."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from llm.files import read_object
from llm.tokenizer import Tokenizer

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
NAMES = {"user": "User", "assistant": "Assistant"}

Turn = tuple[str, str]  # a role and its text


class Template(Protocol):
    """A way to write a chat down."""

    @property
    def stops(self) -> Sequence[str]:
        """The strings that end an answer."""

    def encode(self, tokenizer: Tokenizer, turns: Sequence[Turn]) -> list[int]:
        """The ids up to where the assistant's next text begins."""

    def stop_ids(self, tokenizer: Tokenizer) -> list[int]:
        """The ids that end an answer."""


class PlainTemplate:
    """For models that were never trained to chat: turns as lines with a name, which the model goes on with."""

    stops = ("\nUser:",)

    def encode(self, tokenizer: Tokenizer, turns: Sequence[Turn]) -> list[int]:
        """The ids of the turns as text, after the token that begins a document."""
        lines = [f"{NAMES[role]}: {text}" if role in NAMES else text for role, text in turns]
        return [tokenizer.end_of_text, *tokenizer.encode("\n".join([*lines, "Assistant:"]))]

    def stop_ids(self, tokenizer: Tokenizer) -> list[int]:
        """The end of a document."""
        return [tokenizer.end_of_text]


class ChatMLTemplate:
    """Turns between <|im_start|> and <|im_end|>; both are single tokens that no text can spell."""

    stops = ()

    def encode(self, tokenizer: Tokenizer, turns: Sequence[Turn]) -> list[int]:
        """The ids of the turns and of the beginning of an answer."""
        start, end = (tokenizer.special_tokens[name] for name in (IM_START, IM_END))
        ids: list[int] = []
        for role, text in turns:
            role = "system" if role == "developer" else role
            ids += [start, *tokenizer.encode(f"{role}\n{text}"), end, *tokenizer.encode("\n")]
        return [*ids, start, *tokenizer.encode("assistant\n")]

    def stop_ids(self, tokenizer: Tokenizer) -> list[int]:
        """The end of a turn, and that of a document."""
        return [tokenizer.special_tokens[IM_END], tokenizer.end_of_text]


def template_of(folder: Path, tokenizer: Tokenizer) -> Template:
    """The template that a Hugging Face folder's model was trained with, if it is one of ours; else the plain one.

    Nothing in the folder is executed: it is only seen whether its own template writes ChatML's marks.
    """
    side = folder / "tokenizer_config.json"
    try:
        theirs = read_object(side).get("chat_template") if side.is_file() else None
    except (OSError, ValueError):
        theirs = None
    marked = {IM_START, IM_END} <= tokenizer.special_tokens.keys()
    return ChatMLTemplate() if marked and IM_START in str(theirs) else PlainTemplate()
