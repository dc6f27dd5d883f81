"""An endpoint as lm-evaluation-harness asks for a model: texts written, and choices named by their letters."""

import random
import re
import string
from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs

from llm.errors import ConfigError
from llm.evaluation.api import Ask, Endpoint
from llm.evaluation.harness_model import stops_of, until

LETTERS = string.ascii_uppercase


class ApiModel(LM):
    """Endpoints tell no likelihoods of given texts: of several choices, the model names one by its letter.

    An answer that names none counts as a guess, by a coin that `seed` throws; `n_guessed` counts them.

    Args:
        endpoint: what is asked.
        answer_tokens: the most tokens of an answer that names a letter; models that think aloud need hundreds.
        seed: of guesses.
    """

    def __init__(self, endpoint: Endpoint, *, answer_tokens: int, seed: int) -> None:
        super().__init__()
        self.endpoint, self.answer_tokens, self.seed = endpoint, answer_tokens, seed
        self.n_guessed = 0

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What is written for each prompt, up to the first of its stops."""
        settings = [normalize_gen_kwargs(request.args[1]) for request in requests]
        asks = [
            Ask(request.args[0], keys["max_gen_toks"], tuple(stops_of(keys)), keys.get("temperature") or 0.0)
            for request, keys in zip(requests, settings, strict=True)
        ]
        texts = self.endpoint.answer(asks)
        return [until(text, stops_of(keys)) for text, keys in zip(texts, settings, strict=True)]

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Of each question's choices 0 for the one that is named, minus infinity for the others."""
        questions: dict[tuple[Any, Any], dict[int, tuple[str, str]]] = {}
        for request in requests:
            questions.setdefault((request.task_name, request.doc_id), {})[request.idx] = request.args
        choices = {key: [some[idx] for idx in sorted(some)] for key, some in questions.items()}
        answers = self.endpoint.answer([Ask(asked(some), self.answer_tokens) for some in choices.values()])
        named = {
            key: self._named(key, answer, len(choices[key]))
            for key, answer in zip(choices, answers, strict=True)
        }
        places = [
            sorted(questions[request.task_name, request.doc_id]).index(request.idx) for request in requests
        ]
        right = [named[request.task_name, request.doc_id] for request in requests]
        return [
            (0.0, True) if number == name else (-float("inf"), False)
            for number, name in zip(places, right, strict=True)
        ]

    def _named(self, question: tuple[Any, Any], answer: str, n: int) -> int:
        letter = letter_of(answer, n)
        if letter is not None:
            return letter
        self.n_guessed += 1
        return random.Random(f"{self.seed} {question}").randrange(n)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """No endpoint tells it."""
        raise ConfigError(
            f"model=api: the task {requests[0].task_name} asks how likely a text is, which endpoints don't tell. Tasks of "
            "choices and of writing are for them."
        )


def asked(choices: Sequence[tuple[str, str]]) -> str:
    """The question: the context that the choices share, and a line a choice.

    Raises:
        ConfigError: there is one choice alone, or more than letters.
    """
    if not 1 < len(choices) <= len(LETTERS):
        raise ConfigError(
            f"model=api: a question of {len(choices)} choices can't be asked by letters; it takes 2 to {len(LETTERS)}."
        )
    contexts = {context for context, _ in choices}
    shared = contexts.pop() if len(contexts) == 1 else ""
    texts = [text if shared else context + text for context, text in choices]
    lines = [f"{letter}. {text.strip()}" for letter, text in zip(LETTERS, texts, strict=False)]
    return "\n".join(
        [shared, "", *lines, "", "Answer with the letter of the best choice, and nothing else."]
    ).strip()


def letter_of(answer: str, n: int) -> int | None:
    """Which of the first n letters an answer names: at its beginning, or else the last that stands alone."""
    known = LETTERS[:n]
    if begun := re.match(rf"[\s(*]*([{known}])(?!\w|'| [a-z])", answer):
        return known.index(begun[1])
    alone = re.findall(rf"(?<![\w'])([{known}])(?![\w'])", answer)
    return known.index(alone[-1]) if alone else None
