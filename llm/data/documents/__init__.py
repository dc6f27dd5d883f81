"""What a source gives: documents, the forms of labelled ones (answers, tags, messages) and what is held out; light to import."""

from llm.data.documents.document import (
    BETWEEN,
    BETWEEN_WORDS,
    Document,
    LeftOut,
    Part,
    Piece,
    ReadingPlan,
    Source,
    Split,
    fingerprint,
)

__all__ = [
    "BETWEEN",
    "BETWEEN_WORDS",
    "Document",
    "LeftOut",
    "Part",
    "Piece",
    "ReadingPlan",
    "Source",
    "Split",
    "fingerprint",
]
