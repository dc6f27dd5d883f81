"""Conversations as documents: messages in OpenAI's form are checked, and kept as roles and contents in turn."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm.data.documents import BETWEEN, Document
from llm.errors import DataError

FOLLOWS = {"system": ("user",), "user": ("assistant",), "assistant": ("user",), None: ("system", "user")}
ROLES = ("system", "user", "assistant")
# What newer APIs call instructions.
SAME = {"developer": "system"}
# In place of a role: of the worse of two answers.
REJECTED = "rejected"
Message = dict[str, str]


def conversation(messages: Sequence[Any]) -> bytes:
    """The bytes of a document of these messages.

    Raises:
        DataError: a message lacks role or content, a content is empty or no text, a role is unknown or out of its turn
            (instructions, where there are any, then user and assistant in turn), or the assistant says nothing.
    """
    before = None
    sides = [b""]
    for number, message in enumerate(messages, 1):
        role, content = _checked(message, f"message {number}")
        if role not in FOLLOWS[before]:
            raise DataError(
                f"message {number} is of the {role}, where one of the {' or '.join(FOLLOWS[before])} has to "
                f"{f'follow that of the {before}' if before else 'begin'}."
            )
        before = role
        sides += [role.encode(), content.encode()]
    if b"assistant" not in sides[1::2]:
        raise DataError(
            "the assistant says nothing in this conversation, so that there is nothing to learn from it."
        )
    return BETWEEN.join(sides)


def preference(prompt: Any, chosen: Any, rejected: Any) -> bytes:
    """The bytes of a document of two answers to the same: of a conversation, and of the last answer that is worse.

    A prompt is what the user says, or messages; an answer a text, an assistant's message, or a whole conversation.

    Raises:
        DataError: one of the conversations is none (see `conversation`), they differ before their last answers, or the
            answers are the same.
    """
    better, worse = (_answered(prompt, answer) for answer in (chosen, rejected))
    made, _ = conversation(better), conversation(worse)
    if better[-1]["role"] != "assistant" or worse[-1]["role"] != "assistant":
        raise DataError("the last message of chosen and rejected has to be the assistant's.")
    if better[:-1] != worse[:-1]:
        raise DataError(
            "chosen and rejected answer different conversations: all but their last messages must agree."
        )
    if better[-1] == worse[-1]:
        raise DataError("chosen and rejected are the same, so that neither is better.")
    return BETWEEN.join([made, REJECTED.encode(), worse[-1]["content"].encode()])


def _answered(prompt: Any, answer: Any) -> list[Any]:
    """The conversation that an answer ends."""
    before = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    if not isinstance(answer, list):
        return [*before, {"role": "assistant", "content": answer}]
    begins = answer[0].get("role") if answer and isinstance(answer[0], Mapping) else None
    return [*before, *answer] if begins == "assistant" else answer


def _checked(message: Any, where: str) -> tuple[str, str]:
    """The role and the content of a message."""
    if not isinstance(message, Mapping):
        raise DataError(f"{where} is {type(message).__name__}, no object with role and content.")
    if missing := [key for key in ("role", "content") if key not in message]:
        raise DataError(
            f"{where} has no {' and no '.join(missing)}, only {', '.join(map(str, message)) or 'nothing'}."
        )
    role, content = SAME.get(message["role"], message["role"]), message["content"]
    if role not in ROLES:
        raise DataError(f"{where} has the role {role!r}; known are {', '.join(ROLES)}.")
    if not isinstance(content, str) or not content.strip():
        said = "is empty" if isinstance(content, str) else f"is {type(content).__name__}, not text"
        raise DataError(f"the content of {where} {said}.")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the content of {where} holds a lone surrogate at character {error.start}, which is no Unicode text."
        ) from error
    return role, content


def is_conversation(document: Document) -> bool:
    """Whether a document is of messages."""
    return document.data.startswith(BETWEEN)


def is_preference(document: Document) -> bool:
    """Whether a document of messages ends with two answers."""
    return document.data.split(BETWEEN)[-2:-1] == [REJECTED.encode()]


def as_conversation(document: Document) -> Document:
    """The conversation that a document is; of a pair, its source is asked and its target answered.

    Raises:
        DataError: it is a text alone.
    """
    if is_conversation(document):
        return document
    if BETWEEN not in document.data:
        raise DataError(
            f"{document.id} is a text, where task=chat needs conversations: data=chat reads messages, and pairs of texts "
            "(data=pairs, data.label=) become a question and its answer."
        )
    source, target = document.sides
    messages = [{"role": "user", "content": source}, {"role": "assistant", "content": target}]
    return Document(document.id, conversation(messages), whole_digest=document.digest)


def conversations_of(document: Document) -> list[list[Message]]:
    """The conversations of a document: one, or of a preference that with the better answer and that with the worse."""
    messages = messages_of(document)
    if messages[-1]["role"] != REJECTED:
        return [messages]
    worse = {"role": "assistant", "content": messages[-1]["content"]}
    return [messages[:-1], [*messages[:-2], worse]]


def messages_of(document: Document) -> list[Message]:
    """The messages of a conversation."""
    sides = document.sides
    return [
        {"role": role, "content": content} for role, content in zip(sides[1::2], sides[2::2], strict=True)
    ]
