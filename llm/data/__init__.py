"""Text to token shards, and token shards to batches; light to import (`module` and `collators` are not)."""

from typing import TYPE_CHECKING, Any

from llm.data.corpus import Corpus, TokenStream
from llm.data.documents import Document, Piece, ReadingPlan, Source
from llm.data.preparation.prepare import prepare

if TYPE_CHECKING:
    from llm.data.module import CorpusDataModule

__all__ = [
    "Corpus",
    "CorpusDataModule",
    "Document",
    "Piece",
    "ReadingPlan",
    "Source",
    "TokenStream",
    "prepare",
]


def __getattr__(name: str) -> Any:
    if name == "CorpusDataModule":
        from llm.data.module import CorpusDataModule

        return CorpusDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
