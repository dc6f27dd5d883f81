"""What models write for sources that they never saw, beside their targets: an encoder-decoder, or a decoder in a chat."""

import re

from llm.data.collators.packed import Packed
from llm.data.collators.pairs import Pairs
from llm.evaluation.examples import text_id
from llm.evaluation.result import Result, Row, figures_of
from llm.generation import BatchEngine, Request, TextWriter, translate, write_texts
from llm.generation.context import room_after
from llm.model import Transformer
from llm.tokenizer import ChatTemplate, Tokenizer

# Stands for a question where a template is looked at.
MARK = "(the question)"


def written_beside_targets(
    model: Transformer, pairs: Pairs, tokenizer: Tokenizer, *, limit: int, batch_size: int = 16
) -> tuple[list[str], list[str], list[str]]:
    """The sources of the first `limit` pairs, what the model writes for them, greedily, and their targets."""
    read: list[str] = []
    written: list[str] = []
    targets: list[str] = []
    for first in range(0, min(limit, pairs.size), batch_size):
        texts = [
            tuple(tokenizer.decode(side.tolist()) for side in pairs.pair(number))
            for number in range(first, min(first + batch_size, limit, pairs.size))
        ]
        sources, wanted = zip(*texts, strict=True)
        written += translate(model, tokenizer, sources, max_new_tokens=pairs.length)
        read += sources
        targets += wanted
    return read, written, targets


def answered_beside_targets(
    model: Transformer, packed: Packed, tokenizer: Tokenizer, *, limit: int, batch_size: int = 16
) -> tuple[list[str], list[str], list[str]]:
    """The same of a decoder that was trained on pairs, or on conversations, of which the first answer is asked.

    Of the first `limit` those are left out that leave no room for an answer within the context.
    """
    template = ChatTemplate(tokenizer)
    before, _, after = tokenizer.decode(template.prompt([{"role": "user", "content": MARK}])).partition(MARK)
    stops = template.stop_ids
    exchanges = (packed.exchange(number) for number in range(min(limit, packed.n_conversations)))
    pairs = [
        (given_t.tolist(), written_t.tolist())
        for given_t, written_t in exchanges
        if room_after(given_t, packed.length) > 0
    ]
    requests = [Request(given, room_after(given, packed.length), stop_ids=stops) for given, _ in pairs]
    read = [tokenizer.decode(given).removeprefix(before).removesuffix(after) for given, _ in pairs]
    targets = [tokenizer.decode(wanted[:-1] if wanted[-1] in stops else wanted) for _, wanted in pairs]
    engine = BatchEngine(model, rows=min(batch_size, max(1, len(requests))))
    written = write_texts(engine, {request: TextWriter(tokenizer) for request in requests})
    return read, written, targets


def match_figures(written: list[str], targets: list[str]) -> dict[str, float]:
    """Return exact_match, the share that is as its target, and chrf, from 0 to 100, as sacreBLEU counts it (chrF2)."""
    from sacrebleu.metrics import CHRF  # a third of a second to import

    exact = sum(one == other for one, other in zip(written, targets, strict=True))
    return {"exact_match": exact / len(targets), "chrf": CHRF().corpus_score(written, [targets]).score}


ROUGE = ("rouge1", "rouge2", "rougeL")


def first_sentence(text: str) -> str:
    """The first sentence of a text, or its first line where that ends before."""
    return re.split(r"(?<=[.!?])\s|\n", text.strip(), maxsplit=1)[0]


def is_same(text: str, target: str) -> bool:
    """Whether two texts are the same but for case, white space and the marks that end a sentence."""
    return _plain(text) == _plain(target)


def _plain(text: str) -> str:
    words = " ".join(text.casefold().split())
    return words.rstrip(" .!?") or words


def summary_result(sources: list[str], written: list[str], targets: list[str]) -> Result:
    """How near what is written comes to its target; an example is a text.

    rouge1, rouge2 and rougeL, the mean F1 over the texts, from 0 to 1, as rouge-score counts them with stemming;
    copy_rouge1 and so on are those of a copy of each source's first sentence, or line where that ends before. match and
    first_match are the shares of texts that are the same as their targets, see `is_same`, and whose first sentences are.
    chrf is that of `match_figures`.
    """
    from rouge_score.rouge_scorer import RougeScorer  # nltk with it

    scorer = RougeScorer(ROUGE, use_stemmer=True)
    rows: list[Row] = []
    for source, text, target in zip(sources, written, targets, strict=True):
        scores = {
            name + kind: [score.fmeasure, 1.0]
            for name, predicted in (("", text), ("copy_", first_sentence(source)))
            for kind, score in scorer.score(target, predicted).items()
        }
        scores["match"] = [float(is_same(text, target)), 1.0]
        scores["first_match"] = [float(is_same(first_sentence(text), first_sentence(target))), 1.0]
        rows.append(
            {"id": text_id(source), "text": source, "target": target, "written": text, "scores": scores}
        )
    chrf = match_figures(written, targets)["chrf"] if targets else 0.0
    return Result(figures_of(rows) | {"chrf": chrf}, len(rows), rows)
