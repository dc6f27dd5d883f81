"""From what a client asks to what the engine is asked: prompts, lengths, rules and seeds, or why they can't be."""

from collections.abc import Sequence

from llm.generation import Bias, Penalties, Request, Sampling
from llm.generation.rules import Rule
from llm.serve.errors import ApiError
from llm.serve.schema import SEEDS, Asked
from llm.serve.served import Served
from llm.tokenizer import start_token

DEFAULT_TOKENS = 16  # of a completion, as OpenAI has it


def requests(served: Served, asked: Asked, prompts: Sequence[list[int]]) -> list[Request]:
    """What the engine is asked for, `n` for each prompt; each draws from a seed of its own.

    Raises:
        ApiError: the model can't do as asked.
    """
    sources = [_source(served, prompt) for prompt in prompts]
    stop_ids = served.template.stop_ids if asked.is_chat else [served.tokenizer.end_of_text]
    rules, lengths = _rules(served, asked), [_length(served, asked, prompt) for prompt in prompts]
    grammar = None if asked.schema_given is None else served.grammars.json(asked.schema_given)
    return [
        Request(
            [start_token(served.tokenizer)] if source else prompt,
            length,
            sampling=_sampling(asked),
            seed=_seed(asked, number),
            stop_ids=stop_ids,
            top_logprobs=asked.top_logprobs,
            # A grammar knows how far its text has come.
            rules=rules if grammar is None else [*rules, grammar.copy()],
            source=source,
            adapter=served.adapter,
        )
        for prompt, source, length in zip(prompts, sources, lengths, strict=True)
        for number in range(asked.n or 1)
    ]


def stops(served: Served, asked: Asked) -> list[str]:
    """The strings that end a text: those that the client gives, and of a chat the template's."""
    return [*asked.stops, *(served.template.stops if asked.is_chat else ())]


def _source(served: Served, prompt: list[int]) -> list[int]:
    """What an encoder-decoder reads of a prompt; a decoder has no source.

    Raises:
        ApiError: it is longer than the context.
    """
    if served.is_decoder_lm:
        return []
    source = [*prompt, served.tokenizer.end_of_text]
    served.check_length(len(source), "prompt")
    return source


def _length(served: Served, asked: Asked, prompt: Sequence[int]) -> int:
    """How many tokens a text may have.

    Raises:
        ApiError: prompt and text don't fit into the context.
    """
    context, room = served.model.config.context_length, served.room(prompt)
    default = DEFAULT_TOKENS if served.continues_prompt and not asked.is_chat else room
    length = asked.most_tokens or max(1, min(default, room))
    if length > room:
        raise ApiError(
            400,
            f"This model's context is {context} tokens; the prompt has {context - room}, and {length} are asked for.",
            param=asked.prompt_field,
            code="context_length_exceeded",
        )
    return length


def _rules(served: Served, asked: Asked) -> list[Rule]:
    """What changes the scores before a token is drawn.

    Raises:
        ApiError: a bias is of no token of the model.
    """
    rules: list[Rule] = []
    if asked.frequency_penalty or asked.presence_penalty:
        rules.append(Penalties(asked.frequency_penalty or 0.0, asked.presence_penalty or 0.0))
    biases = {int(token): bias for token, bias in (asked.logit_bias or {}).items()}
    if beyond := [token for token in biases if token >= served.model.config.vocabulary]:
        raise ApiError(400, f"logit_bias: {beyond[0]} is no token of this model.", param="logit_bias")
    if biases:
        rules.append(Bias(biases))
    return rules


def _sampling(asked: Asked) -> Sampling:
    """How tokens are drawn; OpenAI's default is temperature 1."""
    return Sampling(
        temperature=1.0 if asked.temperature is None else asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        min_p=asked.min_p,
        repetition_penalty=asked.repetition_penalty,
    )


def _seed(asked: Asked, number: int) -> int | None:
    """The seed of a request's n-th text."""
    return None if asked.seed is None else (asked.seed + number) % SEEDS
