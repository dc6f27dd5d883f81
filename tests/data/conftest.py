"""Small corpora to prepare, and how to read a stream back."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from llm.data import Corpus, TokenStream, prepare
from llm.data.sources import TextFiles
from llm.tokenizer import ByteSpec

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write files {name: text or bytes} under a folder and return it."""

    def write_files(files: dict[str, str | bytes], folder: str = "text") -> Path:
        for name, content in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / folder

    return write_files


@pytest.fixture
def corpus(write: Write, tmp_path: Path) -> Corpus:
    """Sixty documents of a few hundred bytes, in byte tokens."""
    folder = write({f"{number:02d}.txt": f"Document {number}.\n" * (20 + number) for number in range(60)})
    return prepare(TextFiles([f"{folder}/*.txt"]), ByteSpec(), tmp_path / "shards")


@pytest.fixture
def documents_of() -> Callable[[Corpus, TokenStream], list[bytes]]:
    """The documents of a stream, decoded."""

    def read(corpus: Corpus, stream: TokenStream) -> list[bytes]:
        bounds = [*stream.documents.tolist(), len(stream)]
        assert not len(stream) or bounds[0] == 0
        spans = [stream.tokens[start:end] for start, end in pairwise(bounds)]
        assert all(span[0] == corpus.tokenizer.end_of_text for span in spans)
        assert all(corpus.tokenizer.end_of_text not in span[1:] for span in spans)
        return [corpus.tokenizer.decode_bytes(span.tolist()) for span in spans]

    return read
