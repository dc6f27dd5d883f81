"""What any model says of one text, as text: labels, the text with what it hides filled in, a target, a continuation."""

from collections.abc import Callable

from llm.errors import ConfigError
from llm.generation.abilities import responds_whole
from llm.generation.classifying import classify, estimate
from llm.generation.extracting import answer_question
from llm.generation.filling import fill, restore
from llm.generation.tagging import tagged_words, tags_text
from llm.generation.text import complete
from llm.model import Transformer
from llm.tokenizer import MASK, Tokenizer


def respond(model: Transformer, tokenizer: Tokenizer, text: str, max_new_tokens: int) -> str:
    """What a model says of `text`, the likeliest token each time.

    A model with labels tells them, a line each: the labels' probabilities, the words' tags, a number, or the answer to a
    question that stands before the text, in a line of its own. An encoder, and an encoder-decoder of a text that hides
    something, gives the text back with each <mask> filled in. What else writes gives up to `max_new_tokens` of the target
    that it was trained to write for the text, or of what continues it.

    Raises:
        ConfigError: an encoder has nothing to fill in, or the text is too long.
    """
    if model.config.labels:
        return LABELS_TEXT[model.config.labelled](model, tokenizer, text)
    if model.config.architecture == "encoder":
        if MASK not in text:
            raise ConfigError(f"prompt={text}: an encoder fills in what a prompt hides; put {MASK} into it.")
        return fill(model, tokenizer, text)
    if responds_whole(model, text):
        return restore(model, tokenizer, text, max_new_tokens)
    return complete(model, tokenizer, text, max_new_tokens=max_new_tokens)[0]


def _label_text(model: Transformer, tokenizer: Tokenizer, text: str) -> str:
    probabilities = classify(model, tokenizer, [text])[0]
    return "\n".join(f"{probability:.3f} {label}" for label, probability in probabilities.items())


def _words_text(model: Transformer, tokenizer: Tokenizer, text: str) -> str:
    return tags_text(text, tagged_words(model, tokenizer, text))


def _number_text(model: Transformer, tokenizer: Tokenizer, text: str) -> str:
    return f"{estimate(model, tokenizer, [text])[0]:.6g}"


# What a model says of a text, by what its labels are of.
LABELS_TEXT: dict[str, Callable[[Transformer, Tokenizer, str], str]] = {
    "text": _label_text,
    "words": _words_text,
    "answer": answer_question,
    "number": _number_text,
}
