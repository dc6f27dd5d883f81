"""How well a model answers questions on passages."""

from collections.abc import Mapping, Sequence

from llm.data.answers import exact_match, overlap_f1
from llm.data.collate import Collator
from llm.data.questions import AnswerCollator
from llm.data.shards import TokenStream
from llm.errors import ConfigError, DataError
from llm.evaluation.tagging import read_documents
from llm.generation.answering import answer_of
from llm.model import Transformer
from llm.tokenizer import Tokenizer


def score_answers(
    model: Transformer, stream: TokenStream, collate: Collator, tokenizer: Tokenizer
) -> tuple[dict[str, float], int]:
    """Return `answer_figures` of all questions of a stream, and how many there are.

    Raises:
        ConfigError: the collator makes no questions.
        DataError: there is none.
    """
    if not isinstance(collate, AnswerCollator):
        raise ConfigError("eval=qa: it is for models that task=qa trains.")
    view = collate.view(stream, model.config.context_length, 0)
    told, right = [], []
    for document, windows, scores in read_documents(model, view, tokenizer, whole=True):
        question = view.question(document)
        told.append(answer_of(question.passage, windows, scores))
        right.append(question.answers)
    if not told:
        raise DataError("There is nothing to score: no question is held out.")
    return answer_figures(told, right), len(told)


def answer_figures(told: Sequence[str], right: Sequence[Sequence[str]]) -> dict[str, float]:
    """exact_match and f1 as SQuAD's script counts them, from 0 to 1, of all answers, and apart where some have none.

    The figures of the questions that have an answer are called has_answer_..., those of the others no_answer_...;
    unanswerable is their share.
    """
    pairs = list(zip(told, right, strict=True))
    kinds = {
        "has_answer_": [pair for pair in pairs if pair[1]],
        "no_answer_": [pair for pair in pairs if not pair[1]],
    }
    figures: dict[str, float] = dict(_figures("", pairs))
    if kinds["no_answer_"]:
        figures["unanswerable"] = len(kinds["no_answer_"]) / len(pairs)
        for name, some in kinds.items():
            figures |= _figures(name, some)
    return figures


def _figures(name: str, pairs: Sequence[tuple[str, Sequence[str]]]) -> Mapping[str, float]:
    scores = {"exact_match": exact_match, "f1": overlap_f1}
    return {
        name + kind: sum(score(*pair) for pair in pairs) / len(pairs)
        for kind, score in scores.items()
        if pairs
    }
