"""How a chat becomes tokens: a template in Jinja, kept with the tokenizer, whose special tokens no text can spell.

Shapes: k tokens of a stretch of text.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby

import numpy as np

from llm.errors import ConfigError, DataError
from llm.tokenizer.base import Tokenizer
from llm.tokenizer.rendering import Message, RenderElsewhere, RenderingError, render_here

Stretch = tuple[int, int]  # of a text, from and to

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
# What the assistant writes stands in a `generation` block, where transformers looks for it.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# For tokenizers without these two tokens: names at the beginning of lines, and the end of text behind an answer.
PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'Assistant:' }}"
    "{% generation %}{{ ' ' + message['content'] | trim + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['role'] | capitalize + ': ' + message['content'] | trim }}{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
# Of decoders that write the target of a source: the two, an end of text behind each. By the remark it is told from chats.
SOURCE_AND_TARGET = "{# a source and its target #}"
PAIR = (
    SOURCE_AND_TARGET + "{% if messages | length > 2 or messages[0]['role'] != 'user' %}"
    "{{ raise_exception('this model writes the target of one text, a message of the user; nothing else goes before') }}"
    "{% endif %}"
    "{{ messages[0]['content'] + eos_token }}"
    "{% if messages | length == 2 %}"
    "{% generation %}{{ messages[1]['content'] + eos_token }}{% endgeneration %}"
    "{% endif %}"
)
# What stands before a template of ours: see `with_names`.
NAMES_SET = re.compile(r"\A(?:{% set \w+ = '[^'\\]*' %})*")
GENERATION = re.compile(r"{%(-?)\s*(end)?generation\s*(-?)%}")
MARK = "\ud800"  # a lone surrogate, which stands in no text that has bytes


def default_template(tokenizer: Tokenizer) -> str:
    """The template of a model that is to learn to chat: the tokenizer's own, else ChatML, else plain text."""
    if tokenizer.chat_template is not None:
        return tokenizer.chat_template
    if {IM_START, IM_END} <= tokenizer.special_tokens.keys():
        return CHATML
    return with_end(PLAIN, tokenizer)


def writes_targets(tokenizer: Tokenizer) -> bool:
    """Whether a decoder with this tokenizer was trained to write the targets of sources."""
    return tokenizer.chat_template is not None and SOURCE_AND_TARGET in tokenizer.chat_template


def with_end(template: str, tokenizer: Tokenizer) -> str:
    """A template that knows how the tokenizer spells the end of a text."""
    names = {id_: name for name, id_ in tokenizer.special_tokens.items()}
    return with_names(template, eos_token=names[tokenizer.end_of_text])


def with_names(template: str, **names: str) -> str:
    """A template that needs nobody to tell it how special tokens are spelled."""
    said = (f"{{% set {key} = {name!r} %}}" for key, name in names.items() if key in template)
    return "".join(said) + template


def without_generation(template: str) -> str:
    """The same template for readers that don't know `generation` blocks."""
    return GENERATION.sub(lambda tag: f"{{%{tag[1]} {'endif' if tag[2] else 'if true'} {tag[3]}%}}", template)


def is_ours(template: str) -> bool:
    """Whether a template is one of this file: none of them runs for longer than the chat is long."""
    body = NAMES_SET.sub("", template)
    ours = (CHATML, PLAIN, PAIR)
    return body in (*ours, *map(without_generation, ours))


class ChatTemplate:
    """A tokenizer's chat template at work.

    The template runs in Jinja's sandbox, and one that isn't ours in a process with bounds. Only what it spells itself becomes special tokens: a message that spells one
    stays text. Beside that the ids are those of transformers' `apply_chat_template`.

    Raises:
        ConfigError: the tokenizer has no template, or one that isn't Jinja.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        if tokenizer.chat_template is None:
            raise ConfigError("The tokenizer has no chat template: task=chat gives it one.")
        render = render_here if is_ours(tokenizer.chat_template) else RenderElsewhere
        try:
            self._render_text = render(without_generation(tokenizer.chat_template))
        except RenderingError as error:
            raise ConfigError(f"The tokenizer's chat template can't be read: {error}.") from error
        longest_first = sorted(tokenizer.special_tokens, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)))

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids up to where the assistant's next text begins; a DataError where the template takes no such chat."""
        return self._tokens(self._render(self._hidden(messages), ask=True), [])[0]

    @cached_property
    def stop_ids(self) -> list[int]:
        """The ids that end an answer."""
        chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        try:
            last = int(self.stretches(chat)[-1][-1])
        except DataError:  # it can't be trained with, and may still be asked
            return [self._tokenizer.end_of_text]
        ends = [last] if last in self._tokenizer.special_tokens.values() else []
        return list(dict.fromkeys([*ends, self._tokenizer.end_of_text]))

    def stretches(self, messages: Sequence[Message]) -> list[np.ndarray]:
        """The ids of a chat, in turn those that are given and those that the assistant writes; what follows these is cut.

        Raises:
            DataError: the template takes no such chat, or doesn't write it turn after turn.
        """
        hidden = self._hidden(messages)
        text = self._render(hidden)
        ids, written = self._tokens(text, list(self._answers(hidden, text)))
        runs = groupby(zip(ids, written, strict=True), key=lambda pair: pair[1])
        made = [(is_written, np.array([id_ for id_, _ in run])) for is_written, run in runs]
        if len(made) < 2 or made[0][0]:
            raise DataError("the chat template writes nothing before an answer, or no answer at all.")
        return [run for _, run in (made if made[-1][0] else made[:-1])]

    def _answers(self, messages: Sequence[Message], text: str) -> Iterator[Stretch]:
        """Where in a rendered chat the assistant's turns stand, the ends of turns with them."""
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._render(messages[:number], ask=True)
            after = self._render(messages[: number + 1])
            if not (after.startswith(before) and text.startswith(after)):
                raise DataError(
                    "the chat template writes earlier turns otherwise once later ones follow, so that no answer can be "
                    "told from what stands before it. Give another by task.template=."
                )
            yield len(before), len(after.rstrip())

    def _render(self, messages: Sequence[Message], ask: bool = False) -> str:
        try:
            return self._render_text(messages, ask)
        except RenderingError as error:
            raise DataError(f"the chat template takes no such chat: {error}.") from error

    def _hidden(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with marks in what spells special tokens; a DataError where one is no valid Unicode."""
        if any(MARK in message["content"] for message in messages):
            raise DataError("a message holds a lone surrogate, which is no valid Unicode.")
        hide = lambda found: "".join(letter + MARK for letter in found[0])  # noqa: E731
        return [
            {"role": message["role"], "content": self._special.sub(hide, message["content"])}
            for message in messages
        ]

    def _tokens(self, text: str, stretches: list[Stretch]) -> tuple[list[int], list[bool]]:
        """The ids of a rendered chat, and which hold any of the characters in `stretches`."""
        ids: list[int] = []
        written: list[bool] = []
        at = 0
        for start, end, special in self._specials(text):
            between, is_written = self._plain(text, (at, start), stretches)
            ids += [*between, *special]
            written += [*is_written, *(any(low <= start < high for low, high in stretches) for _ in special)]
            at = end
        return ids, written

    def _specials(self, text: str) -> Iterator[tuple[int, int, list[int]]]:
        for found in self._special.finditer(text):
            yield found.start(), found.end(), [self._tokenizer.special_tokens[found[0]]]
        yield len(text), len(text), []

    def _plain(self, text: str, place: Stretch, stretches: Sequence[Stretch]) -> tuple[list[int], list[bool]]:
        """The ids of the text in `place`, which holds no special token, and which hold any of `stretches`."""
        first, last = place
        n_bytes = lambda upto: len(text[first:upto].replace(MARK, "").encode())  # noqa: E731
        if first == last:
            return [], []
        ids = self._tokenizer.encode(text[first:last].replace(MARK, ""))
        if not stretches:
            return ids, [False] * len(ids)
        sizes_k = np.array([len(self._tokenizer.decode_bytes([id_])) for id_ in ids])
        # From the end, since some tokenizers put a space before a text.
        starts_k = n_bytes(last) - np.cumsum(sizes_k[::-1])[::-1]
        written_k = np.zeros(len(ids), bool)
        for low, high in ((max(low, first), min(high, last)) for low, high in stretches):
            if low < high:
                written_k |= (starts_k < n_bytes(high)) & (starts_k + sizes_k > n_bytes(low))
        return ids, written_k.tolist()
