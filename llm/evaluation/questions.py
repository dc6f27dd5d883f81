"""How well a model answers questions on passages."""

from collections.abc import Sequence

from llm.data.collators.base import Collator
from llm.data.collators.questions import AnswerCollator
from llm.data.corpus import TokenStream
from llm.data.documents.answers import exact_match, overlap_f1
from llm.errors import ConfigError, DataError
from llm.evaluation.examples import text_id
from llm.evaluation.result import Result, Row, figures_of
from llm.evaluation.tagging import read_documents
from llm.generation.extracting import answer_of
from llm.model import Transformer
from llm.tokenizer import Tokenizer

# The figures of questions that have an answer, and of those that have none.
KINDS = {"has_answer_": True, "no_answer_": False}


def score_answers(model: Transformer, stream: TokenStream, collate: Collator, tokenizer: Tokenizer) -> Result:
    """How all questions of a stream are answered: `answer_result`.

    Raises:
        ConfigError: the collator makes no questions.
        DataError: there is none.
    """
    if not isinstance(collate, AnswerCollator):
        raise ConfigError("eval=qa: it is for models that task=qa trains.")
    view = collate.samples(stream, model.config.context_length, 0)
    texts, predicted, right = [], [], []
    for document, windows, scores in read_documents(model, view, tokenizer, whole=True):
        question = view.question(document)
        texts.append(view.shown(document, tokenizer))
        predicted.append(answer_of(question.passage, windows, scores))
        right.append(question.answers)
    if not predicted:
        raise DataError("There is nothing to score: no question is held out.")
    return answer_result(texts, predicted, right)


def answer_result(texts: Sequence[str], predicted: Sequence[str], right: Sequence[Sequence[str]]) -> Result:
    """How questions are answered, by their texts, what is predicted and what is right; an example is a question.

    exact_match and f1 as SQuAD's script counts them, from 0 to 1, of all answers, and apart where some have none: those
    of the questions that have an answer are called has_answer_..., those of the others no_answer_...; unanswerable is
    their share.
    """
    has_any = [bool(answers) for answers in right]
    kinds = [name for name, has in KINDS.items() if not all(has_any) and has in has_any]
    rows: list[Row] = []
    for text, answer, answers in zip(texts, predicted, right, strict=True):
        found = {"exact_match": exact_match(answer, answers), "f1": overlap_f1(answer, answers)}
        scores = {name: [value, 1.0] for name, value in found.items()}
        if kinds:
            scores["unanswerable"] = [float(not answers), 1.0]
        for kind in kinds:
            counts = float(bool(answers) == KINDS[kind])
            scores |= {kind + name: [value * counts, counts] for name, value in found.items()}
        rows.append(
            {"id": text_id(text), "text": text, "target": [*answers], "prediction": answer, "scores": scores}
        )
    return Result(figures_of(rows), len(rows), rows)
