"""The transformer: embedding, one stack or two, head. GPT is a causal stack, BERT a bidirectional one, T5 both.

Shapes: b batch, t time, s time of a source, k scored positions, d width, v vocabulary.
"""

import torch
from torch import Tensor, nn

from llm.errors import ConfigError
from llm.model.block import Memory, Stack
from llm.model.cache import Cache
from llm.model.config import ModelConfig
from llm.model.heads import Embedding, LabelHead, Pooler, Unembedding


class Transformer(nn.Module):
    """A language model that scores the vocabulary at every position, or labels in its place.

    A decoder scores the next token, an encoder the token itself where it was masked, and an encoder-decoder the next
    token of a target for a source. Weights are unset until `init_weights` or `load_state_dict`; building under
    `torch.device("meta")` is fine.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        both = config.architecture == "encoder_decoder"
        self.embedding = Embedding(config)
        # `encoder` stands only beside a decoder; a lone stack is `stack`, a BERT's too. Checkpoints name weights so.
        self.encoder = Stack(config, causal=False, n_layers=config.encoder_layers) if both else None
        self.stack = Stack(
            config, causal=config.architecture != "encoder", cross=both, n_layers=config.n_layers
        )
        self.unembedding = None if config.labels else Unembedding(config)
        self.label_head = LabelHead(config) if config.labels else None
        self.pooler = Pooler(config) if config.pooler else None

    @property
    def reads_source(self) -> bool:
        """Whether a decoder here attends to what an encoder makes of a source: that of an encoder-decoder."""
        return self.encoder is not None

    def forward(
        self,
        tokens_bt: Tensor,
        *,
        cache: Cache | None = None,
        documents_bt: Tensor | None = None,
        segments_bt: Tensor | None = None,
        source_bs: Tensor | None = None,
        source_documents_bs: Tensor | None = None,
        memory: Memory | None = None,
        prefix_b: Tensor | None = None,
        positions_bk: Tensor | None = None,
    ) -> Tensor:
        """Return logits (b, t, v), or (b, k, v) of some positions.

        Args:
            tokens_bt: of a text, or of an encoder-decoder's target.
            cache: what `tokens_bt` continues.
            documents_bt: the document that each token belongs to, llm.model.mask.PADDING for none: tokens see their
                own document alone. None is for rows of one document each.
            segments_bt: the segment of each token.
            source_bs: what an encoder-decoder reads, with its documents.
            memory: in place of the source, what `encode_source` made of it.
            prefix_b: how many of each text's first tokens a decoder reads on both sides. Under `model.prefix_lm` None
                is for all of them where a cache begins, since that is a prompt.
            positions_bk: the positions that are scored; None for all.
        """
        if source_bs is not None:
            memory = self.encode_source(source_bs, source_documents_bs)
        hidden_btd = self.hidden_states(tokens_bt, cache, documents_bt, segments_bt, memory, prefix_b)
        if positions_bk is not None:
            hidden_btd = hidden_btd.take_along_dim(positions_bk[..., None], dim=1)
        return self.head(hidden_btd)

    def hidden_states(
        self,
        tokens_bt: Tensor,
        cache: Cache | None = None,
        documents_bt: Tensor | None = None,
        segments_bt: Tensor | None = None,
        memory: Memory | None = None,
        prefix_b: Tensor | None = None,
    ) -> Tensor:
        """Return the hidden states (b, t, d) that `head` reads; the arguments are those of `forward`."""
        if self.reads_source != (memory is not None):
            wanted = "needs a" if self.reads_source else "takes no"
            raise ConfigError(f"architecture={self.config.architecture} {wanted} source")
        held = 0 if cache is None else cache.length
        self._check_room(held + tokens_bt.shape[1], cache)
        start = 0 if cache is None else cache.start
        if self.config.prefix_lm and prefix_b is None and cache is not None and not held:
            prefix_b = torch.full_like(tokens_bt[:, 0], tokens_bt.shape[1])
        x_btd = self.embedding(tokens_bt, start, segments_bt)
        return self.stack(x_btd, cache, documents_bt, memory, prefix_b)

    def encode_source(self, source_bs: Tensor, documents_bs: Tensor | None = None) -> Memory:
        """Return what the decoder may look at of a source (b, s), once for all that it writes."""
        return self.stack.project_source(self.source_states(source_bs, documents_bs), documents_bs)

    def source_states(self, source_bs: Tensor, documents_bs: Tensor | None = None) -> Tensor:
        """Return the encoder's hidden states (b, s, d) of a source (b, s).

        Raises:
            ConfigError: the model reads no source, or this one is too long.
        """
        if self.encoder is None:
            raise ConfigError(f"architecture={self.config.architecture} takes no source")
        self._check_room(source_bs.shape[1], None)
        hidden_bsd: Tensor = self.encoder(self.embedding(source_bs), documents_bt=documents_bs)
        return hidden_bsd

    def head(self, hidden_btd: Tensor) -> Tensor:
        """Return the logits (b, t, v) of hidden states: of the vocabulary, or of the config's labels."""
        if self.unembedding is not None:
            return self.unembedding(hidden_btd, self.embedding.tokens.weight)
        assert self.label_head is not None
        return self.label_head(hidden_btd if self.pooler is None else self.pooler(hidden_btd))

    def _check_room(self, length: int, cache: Cache | None) -> None:
        room = self.config.context_length if cache is None else cache.max_length
        if length > room:
            what = "the model's context_length" if cache is None else "the cache"
            raise ConfigError(f"{length} tokens do not fit {what} of {room}: shorten them")
