"""The decoder-only transformer: embedding, one causal stack, head."""

# Shape legend: b batch, t time, d width, v vocabulary.

from torch import Tensor, nn

from llm.errors import ConfigError
from llm.model.block import Stack
from llm.model.cache import KVCache
from llm.model.config import ModelConfig
from llm.model.heads import Embedding, Unembedding


class Transformer(nn.Module):
    """A language model that scores the next token at every position.

    Weights are unset until `init_weights` or `load_state_dict`; building under `torch.device("meta")` is fine.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.stack = Stack(config, causal=True)
        self.unembedding = Unembedding(config)

    def forward(self, tokens_bt: Tensor, *, cache: KVCache | None = None) -> Tensor:
        """Return logits (b, t, v); with a cache, `tokens_bt` continues what it holds."""
        return self.head(self.encode(tokens_bt, cache))

    def encode(self, tokens_bt: Tensor, cache: KVCache | None = None) -> Tensor:
        """Return the hidden states (b, t, d) that `head` reads."""
        start = 0 if cache is None else cache.length
        self._check_room(start + tokens_bt.shape[1], cache)
        return self.stack(self.embedding(tokens_bt, start), cache)

    def head(self, hidden_btd: Tensor) -> Tensor:
        """Return the logits (b, t, v) of hidden states."""
        return self.unembedding(hidden_btd, self.embedding.tokens.weight)

    def _check_room(self, length: int, cache: KVCache | None) -> None:
        room = self.config.context_length if cache is None else cache.max_length
        if length > room:
            what = "the model's context_length" if cache is None else "the cache"
            raise ConfigError(f"{length} tokens do not fit {what} of {room}: shorten them")
