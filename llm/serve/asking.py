"""From what a client asks to what the engine is asked: prompts, lengths, rules and seeds, or why they can't be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm.generation import Bias, Penalties, Request, Sampling
from llm.generation.context import room_after
from llm.generation.rules import Rule
from llm.generation.text import prompt_and_source
from llm.serve.errors import ApiError
from llm.serve.schema import SEEDS
from llm.serve.served import Served


@dataclass(frozen=True)
class Settings:
    """How texts are to be written, whatever route is asked for them.

    Args:
        prompt_field: the request's field that holds the prompt, for errors to name.
        is_chat: whether a text ends where the model's chat template ends a turn, else at the end of a document.
        sampling: how each token is drawn.
        max_tokens: the most tokens of a text; refused where the context has no room for so many behind the prompt.
        default_tokens: the most tokens of a text where `max_tokens` is None, or as many as the context has room for if
            that is fewer. None for all that it has room for.
        n: texts for each prompt.
        seed: of each prompt's first text, counted up by one for each further one; None for another one each time.
        stops: strings that end a text, which leaves them out.
        top_logprobs: how many of the likeliest tokens are told with each token; see `Request`.
        frequency_penalty: taken off a token's logit for each time that it was drawn; the prompt's don't count.
        presence_penalty: taken off a token's logit once it was drawn.
        biases: what is added to the logits of some tokens, by their ids.
        schema: the JSON schema that a text must obey; None for any text.
    """

    prompt_field: str
    is_chat: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    default_tokens: int | None = None
    n: int = 1
    seed: int | None = None
    stops: Sequence[str] = ()
    top_logprobs: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    biases: Mapping[int, float] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None


def requests(served: Served, settings: Settings, prompts: Sequence[list[int]]) -> list[Request]:
    """What the engine is asked for, `n` for each prompt; each draws from a seed of its own.

    Raises:
        ApiError: the model can't do as asked.
    """
    stop_ids = served.template.stop_ids if settings.is_chat else [served.tokenizer.end_of_text]
    rules, read = _rules(served, settings), [_read(served, settings, prompt) for prompt in prompts]
    grammar = None if settings.schema is None else served.grammars.json(settings.schema)
    return [
        Request(
            prompt,
            length,
            sampling=settings.sampling,
            seed=_seed(settings, number),
            stop_ids=stop_ids,
            top_logprobs=settings.top_logprobs,
            # A grammar knows how far its text has come.
            rules=rules if grammar is None else [*rules, grammar.copy()],
            source=source,
            adapter=served.adapter,
        )
        for prompt, source, length in read
        for number in range(settings.n)
    ]


def stops(served: Served, settings: Settings) -> list[str]:
    """The strings that end a text: those that the client gives, and of a chat the template's."""
    return [*settings.stops, *(served.template.stops if settings.is_chat else ())]


def _read(served: Served, settings: Settings, given: list[int]) -> tuple[list[int], list[int], int]:
    """The prompt and the source that the model reads for what is given, and how many tokens its text may have.

    Raises:
        ApiError: they don't fit into the context.
    """
    prompt, source = prompt_and_source(served.model, served.tokenizer, given)
    served.check_fits(len(source), 0, settings.prompt_field)
    room = room_after(prompt, served.model.config.context_length)
    default = room if settings.default_tokens is None else min(settings.default_tokens, room)
    length = settings.max_tokens or max(1, default)
    served.check_fits(len(prompt), length, settings.prompt_field)
    return prompt, source, length


def _rules(served: Served, settings: Settings) -> list[Rule]:
    """What changes the scores before a token is drawn.

    Raises:
        ApiError: a bias is of no token of the model.
    """
    rules: list[Rule] = []
    if settings.frequency_penalty or settings.presence_penalty:
        rules.append(Penalties(settings.frequency_penalty, settings.presence_penalty))
    if beyond := [token for token in settings.biases if token >= served.model.config.vocabulary]:
        raise ApiError(400, f"logit_bias: {beyond[0]} is no token of this model.", param="logit_bias")
    if settings.biases:
        rules.append(Bias(settings.biases))
    return rules


def _seed(settings: Settings, number: int) -> int | None:
    """The seed of a prompt's n-th text."""
    return None if settings.seed is None else (settings.seed + number) % SEEDS
