"""Files in SQuAD's format: questions on passages, answered by a stretch of them or not at all."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm.data.documents import Document, LeftOut, Split
from llm.data.documents.answers import Answer, asked
from llm.data.files.inputs import OnBadFile
from llm.data.sources.record_files import RecordFiles
from llm.data.sources.records import by_passage, passage_id
from llm.errors import DataError

OR_SKIP = "Leave such questions out by data.on_bad_file=skip."


@dataclass(frozen=True)
class SquadPiece:
    """All questions of a file; those of a passage share an id, so that they are held out together."""

    path: str
    on_bad_file: OnBadFile

    def documents(self, left_out: LeftOut) -> Iterator[Document]:
        """Read the questions in order."""
        try:
            articles = json.loads(Path(self.path).read_text(encoding="utf-8-sig"))["data"]
            passages = [passage for article in articles for passage in article["paragraphs"]]
            asked = [(passage["context"], question) for passage in passages for question in passage["qas"]]
        except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path} is no file in SQuAD's format, a JSON object whose `data` has `paragraphs` with `context` and "
                f"`qas` ({type(error).__name__}: {error})."
            ) from error
        for context, question in asked:
            yield from self._document(context, question, left_out)

    def _document(self, context: Any, question: Any, left_out: LeftOut) -> Iterator[Document]:
        try:
            yield Document(passage_id(context), _data(context, question))
        except DataError as error:
            name = question.get("id") if isinstance(question, Mapping) else None
            where = f"{self.path}, question {name}"
            if self.on_bad_file != "skip":
                raise DataError(f"{where}: {error} {OR_SKIP}") from error
            left_out.add("bad", where, str(error))


def _data(context: Any, asked_of_it: Any) -> bytes:
    try:
        question = asked_of_it["question"]
        answers = [] if asked_of_it.get("is_impossible") else asked_of_it["answers"]
        found = [Answer(answer["text"], answer["answer_start"]) for answer in answers]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"it has no question and answers, each with text and answer_start ({type(error).__name__}: {error})."
        ) from error
    return asked(question, context, found)


@dataclass(frozen=True)
class Squad(RecordFiles):
    """Source: files in SQuAD's format (arXiv 1606.05250), of version 2 (1806.03822) where they have `is_impossible`.

    `validation_share` of the passages is held out, with all of their questions. An answer that isn't where it says is a bad
    record; see `RecordFiles`.
    """

    text: str = field(init=False, default="question")
    label: str | None = field(init=False, default="answers")

    kind = "squad"

    @property
    def corpus_name(self) -> str:
        """What its documents are."""
        return "questions"

    def split(self, first: Sequence[Document]) -> Split:
        """By the passage."""
        return by_passage(first, self.validation_share)

    def pieces(self, path: str, size: int, limit: int) -> Iterator[SquadPiece]:
        """The whole file."""
        yield SquadPiece(path, self.on_bad_file)
