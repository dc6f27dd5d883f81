"""The cached engine: from prompts to a stream of next tokens, beyond the context too.

Shapes: b batch, t tokens so far, v vocabulary.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from llm.errors import ConfigError
from llm.generation.mode import inference
from llm.generation.sampling import Sampling
from llm.model import KVCache, Transformer
from llm.model.block import Memory

GREEDY = Sampling(temperature=0.0)


def generate(
    model: Transformer,
    prompt_bt: Tensor,
    *,
    sampling: Sampling = GREEDY,
    max_new_tokens: int,
    stop_ids: Sequence[int] = (),
    seed: int | None = None,
    memory: Memory | None = None,
) -> Iterator[Tensor]:
    """Yield the next token of each row, (b,) int64 on the model's device, one step at a time.

    All prompts of a batch have one length, at least 1. A row that drew one of `stop_ids` repeats it; when
    every row has, the stream ends. A prompt that is longer than the context loses its beginning, and a text that
    outgrows it goes on from the newest half. Randomness comes from `seed` alone (None: from the system) and never
    from the global generator; the model's mode is left as it was between steps. An encoder-decoder needs `memory`:
    what its `encode_source` made of the rows' sources.

    Raises:
        ConfigError: at the first `next()`, where a prompt is empty or max_new_tokens below 0.
        TrainingError: at the step whose scores are not finite.
    """
    if prompt_bt.shape[1] == 0:
        raise ConfigError("A prompt needs at least one token; begin an empty one with the end-of-text token.")
    if max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens={max_new_tokens}: it must be 0 or above.")
    context = _Context(model, prompt_bt, max_new_tokens, memory)
    device = context.tokens_bt.device
    generator = seeded(device, seed)
    stop = torch.tensor(list(stop_ids), device=device, dtype=torch.long)
    stopped_b = torch.zeros(len(prompt_bt), device=device, dtype=torch.bool)
    for _ in range(max_new_tokens):
        with inference(model):
            drawn_b = sampling.draw(context.next_logits(), context.tokens_bt, [generator])
            token_b = torch.where(stopped_b, context.tokens_bt[:, -1], drawn_b)
            stopped_b = torch.isin(token_b, stop)
            context.append(token_b)
        yield token_b
        if stopped_b.all():
            return


class _Context:
    """All tokens so far, and a cache of the keys and values of the newest.

    When the cache is full, it starts anew from the newest half of the context: a cost of one prefill each
    half context, where sliding by one would cost one a token. A longer prompt enters by its last
    `context_length` tokens.
    """

    def __init__(
        self, model: Transformer, prompt_bt: Tensor, max_new_tokens: int, memory: Memory | None
    ) -> None:
        weight = next(model.parameters())
        self.model, self.memory = model, memory
        self.tokens_bt = prompt_bt.to(weight.device, torch.long)
        self.length = model.config.context_length
        room = min(self.length, prompt_bt.shape[1] + max_new_tokens)
        self.cache = KVCache(model.config, len(prompt_bt), room, weight.device, weight.dtype)
        self.pending = min(self.length, prompt_bt.shape[1])

    def next_logits(self) -> Tensor:
        """Logits (b, v) after the newest token."""
        if self.cache.length + self.pending > self.length:
            self.cache.reset()
            self.pending = max(1, self.length // 2)
        hidden_btd = self.model.hidden_states(
            self.tokens_bt[:, -self.pending :], self.cache, memory=self.memory
        )
        self.pending = 0
        return self.model.head(hidden_btd[:, -1:])[:, 0]

    def append(self, token_b: Tensor) -> None:
        """Add the next token of each row."""
        self.tokens_bt = torch.cat([self.tokens_bt, token_b[:, None]], dim=1)
        self.pending += 1


def seeded(device: torch.device, seed: int | None) -> torch.Generator:
    """A generator of its own, which None seeds from the system."""
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
        return generator
    return generator.manual_seed(seed)
