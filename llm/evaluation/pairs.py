"""What an encoder-decoder writes for sources that it never saw, beside their targets."""

from llm.data.pairs import Pairs
from llm.generation import translate
from llm.model import Transformer
from llm.tokenizer import Tokenizer


def written_beside_targets(
    model: Transformer, pairs: Pairs, tokenizer: Tokenizer, *, limit: int, batch_size: int = 16
) -> tuple[list[str], list[str]]:
    """What the model writes, greedily, for the first `limit` pairs, and their targets."""
    written: list[str] = []
    targets: list[str] = []
    for first in range(0, min(limit, pairs.size), batch_size):
        texts = [
            tuple(tokenizer.decode(side.tolist()) for side in pairs.pair(number))
            for number in range(first, min(first + batch_size, limit, pairs.size))
        ]
        sources, wanted = zip(*texts, strict=True)
        written += translate(model, tokenizer, sources, max_new_tokens=pairs.length)
        targets += wanted
    return written, targets


def match_figures(written: list[str], targets: list[str]) -> dict[str, float]:
    """Return exact_match, the share that is as its target, and chrf, from 0 to 100, as sacreBLEU counts it (chrF2)."""
    from sacrebleu.metrics import CHRF  # a third of a second to import

    exact = sum(one == other for one, other in zip(written, targets, strict=True))
    return {"exact_match": exact / len(targets), "chrf": CHRF().corpus_score(written, [targets]).score}
