"""What models write for sources that they never saw, beside their targets: an encoder-decoder, or a decoder in a chat."""

import re

import numpy as np

from llm.data.collators.conversations import Conversations
from llm.data.collators.pairs import Pairs
from llm.evaluation.examples import text_id
from llm.evaluation.result import Result, Row, figures_of
from llm.generation import complete, translate
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
    model: Transformer, conversations: Conversations, tokenizer: Tokenizer, *, limit: int
) -> tuple[list[str], list[str], list[str]]:
    """The same of a decoder that was trained on pairs as questions and answers.

    A source is the first question of a conversation, of the first `limit`; those that leave no room for an
    answer within the context are left out.
    """
    template = ChatTemplate(tokenizer)
    before, _, after = tokenizer.decode(template.prompt([{"role": "user", "content": MARK}])).partition(MARK)
    read: list[str] = []
    written: list[str] = []
    targets: list[str] = []
    for number in range(min(limit, len(conversations.lengths))):
        ids_t, turn_t = conversations.transcripts.read(number)
        # The last id that is given before the first answer, and the last of that.
        edges = np.flatnonzero(np.diff(turn_t % 2 == 1, append=False))
        asked, answered = ids_t[: edges[0] + 1].tolist(), ids_t[edges[0] + 1 : edges[1] + 1].tolist()
        room = conversations.length - len(asked)
        if room < 1:
            continue
        stops = template.stop_ids
        written += complete(model, tokenizer, asked, max_new_tokens=room, stop_ids=stops)
        read.append(tokenizer.decode(asked).removeprefix(before).removesuffix(after))
        targets.append(tokenizer.decode(answered[:-1] if answered[-1] in stops else answered))
    return read, written, targets


def match_figures(written: list[str], targets: list[str]) -> dict[str, float]:
    """Return exact_match, the share that is as its target, and chrf, from 0 to 100, as sacreBLEU counts it (chrF2)."""
    from sacrebleu.metrics import CHRF  # a third of a second to import

    exact = sum(one == other for one, other in zip(written, targets, strict=True))
    return {"exact_match": exact / len(targets), "chrf": CHRF().corpus_score(written, [targets]).score}


ROUGE = ("rouge1", "rouge2", "rougeL")


def rouge_result(sources: list[str], written: list[str], targets: list[str]) -> Result:
    """How near what is written comes to its target; an example is a text.

    rouge1, rouge2 and rougeL, the mean F1 over the texts, from 0 to 1, as rouge-score counts them with stemming;
    copy_rouge1 and so on are those of a copy of each source's first sentence, or line where that ends before.
    """
    from rouge_score.rouge_scorer import RougeScorer  # nltk with it

    scorer = RougeScorer(ROUGE, use_stemmer=True)
    rows: list[Row] = []
    for source, text, target in zip(sources, written, targets, strict=True):
        copy = re.split(r"(?<=[.!?])\s|\n", source.strip(), maxsplit=1)[0]
        scores = {
            name + kind: [score.fmeasure, 1.0]
            for name, told in (("", text), ("copy_", copy))
            for kind, score in scorer.score(target, told).items()
        }
        rows.append(
            {"id": text_id(source), "text": source, "target": target, "written": text, "scores": scores}
        )
    return Result(figures_of(rows), len(rows), rows)
