"""Which positions may look at which, as the arguments that torch's attention takes for it.

Shapes: b batch, t queries, s keys, h heads.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

# `attn_mask` or `is_causal` for `scaled_dot_product_attention`, or a `block_mask` for `flex_attention`; none for no mask.
AttentionKwargs = dict[str, Any]

# In place of a document's number: a position that only fills a row up.
PADDING = -1


def distances(t: int, s: int, device: torch.device, start_b: Tensor | None = None) -> Tensor:
    """How far each of `s` keys lies behind each query, (t, s): of the last `t` positions.

    Where rows begin each at their own position, `start_b`, it is (b, t, s).
    """
    first = s - t if start_b is None else start_b[:, None]
    position_t = first + torch.arange(t, device=device)
    return position_t[..., None] - torch.arange(s, device=device)


class AttentionMask(NamedTuple):
    """Which positions see which: all see all, but for what these say.

    Args:
        causal: no position sees a later one, but for those of a prefix.
        window: a position sees only those less than this far away.
        documents_bs: the document that each position belongs to, or PADDING; it sees its own document alone. A
            padding position sees all that the rest allows, since a row of nothing seen has no softmax.
        start_b: the first position of each row, where they differ; keys beyond a row's end are for other rows.
        prefix_b: so many of each row's first positions are seen by all, whatever the order.
    """

    causal: bool
    window: int | None = None
    documents_bs: Tensor | None = None
    start_b: Tensor | None = None
    prefix_b: Tensor | None = None

    def of(self, s: int) -> "AttentionMask":
        """The same of `s` positions, without what says nothing of them."""
        within = self.window is not None and self.window < s
        return self._replace(
            window=self.window if within else None, prefix_b=self.prefix_b if self.causal else None
        )

    @property
    def is_plain(self) -> bool:
        """Whether order alone decides, if anything does."""
        return all(extra is None for extra in self[1:])

    def dense(self, t: int, s: int, device: torch.device) -> Tensor:
        """Where the last `t` of `s` positions see each of them, (t, s), or (b, 1, t, s) where rows differ."""
        distance_ts = distances(t, s, device, self.start_b)
        if self.start_b is not None:
            distance_ts = distance_ts[:, None]  # alike for all heads
        seen = distance_ts >= 0 if self.causal else torch.ones_like(distance_ts, dtype=torch.bool)
        if self.prefix_b is not None:
            seen = seen | (torch.arange(s, device=device) < self.prefix_b[:, None, None, None])
        if self.window is not None:
            seen = seen & (distance_ts.abs() < self.window)
        if self.documents_bs is not None:
            seen = seen & same_document(self.documents_bs[:, -t:], self.documents_bs)
        return seen

    def blocks(self, t: int, device: torch.device) -> BlockMask:
        """What `dense` says of `t` positions that see each other, block by block."""
        causal, window, documents_bt, _, prefix_b = self

        def seen(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            seen = query >= key if causal else query == query
            if prefix_b is not None:
                seen = seen | (key < prefix_b[b])
            if window is not None:
                seen = seen & ((query - key).abs() < window)
            if documents_bt is not None:
                own = documents_bt[b, query]
                seen = seen & ((own == documents_bt[b, key]) | (own == PADDING))
            return seen

        rows = next((len(each) for each in (documents_bt, prefix_b) if each is not None), None)
        return create_block_mask(seen, rows, None, t, t, device=device)


def attention_kwargs(
    mask: AttentionMask,
    t: int,
    s: int,
    device: torch.device,
    *,
    bias_hts: Tensor | None = None,
    sparse: bool = False,
) -> AttentionKwargs:
    """Return what lets `t` of `s` positions see what they may: the last ones, or those from `mask.start_b` on.

    Args:
        bias_hts: what is added to the scores.
        sparse: whether blocks of positions that see nothing of each other may be left out of the work; else the mask is
            dense. It says the same.
    """
    mask = mask.of(s)
    if mask.is_plain and bias_hts is None:
        return _plain(t, s, device, mask.causal)
    if sparse and t == s and bias_hts is None and mask.start_b is None:
        return {"block_mask": mask.blocks(t, device)}
    seen = mask.dense(t, s, device)
    return {"attn_mask": seen if bias_hts is None else torch.where(seen, bias_hts, -torch.inf)}


def works_sparse(device: torch.device) -> bool:
    """Whether FlexAttention (arXiv 2412.05496) pays here: it trains on a GPU, and only compiled is it one kernel."""
    return device.type == "cuda" and torch.compiler.is_compiling()


def cross_attention_kwargs(documents_bt: Tensor | None, documents_bs: Tensor | None) -> AttentionKwargs:
    """Return what lets positions of a target, the last of its row, see the source's of the same document.

    A target without documents is one alone: it sees all of the source but its padding.
    """
    if documents_bs is None:
        return {}
    if documents_bt is None:
        return {"attn_mask": (documents_bs != PADDING)[:, None, None, :]}
    return {"attn_mask": same_document(documents_bt, documents_bs)}


def same_document(documents_bt: Tensor, documents_bs: Tensor) -> Tensor:
    """Return where queries (b, t) and keys (b, s) share a document, (b, 1, t, s); padding queries share any."""
    queries_bt1 = documents_bt[:, :, None]
    return ((queries_bt1 == documents_bs[:, None, :]) | (queries_bt1 == PADDING))[:, None]


def _plain(t: int, s: int, device: torch.device, causal: bool) -> AttentionKwargs:
    if not causal or t == 1:
        return {}
    if t == s:
        return {"is_causal": True}
    return {"attn_mask": torch.ones(t, s, dtype=torch.bool, device=device).tril(s - t)}
