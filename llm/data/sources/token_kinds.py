"""Tagged sentences that are always there: the tokens of Python's standard library, with their kinds."""

import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from llm.data.documents.bio import tagged
from llm.data.sources.stdlib_records import LibraryRecords

# A tag that stays apart from the tokens around it.
TAG = "B-{}"


@dataclass(frozen=True)
class TokenKinds(LibraryRecords):
    """Source: the statements of the standard library, each token tagged with the kind that `tokenize` tells."""

    corpus_name = "token_kinds"

    @staticmethod
    def records(name: str, text: str) -> Iterator[bytes]:
        """A sentence for each statement, with the comments before it."""
        words: list[str] = []
        tags: list[str] = []
        try:
            for token in tokenize.generate_tokens(io.StringIO(text).readline):
                if token.string.strip():
                    words.append(token.string)
                    tags.append(TAG.format(tokenize.tok_name[token.type]))
                if token.type == tokenize.NEWLINE and words:
                    yield tagged(words, tags)
                    words, tags = [], []
        except (tokenize.TokenError, SyntaxError):
            return
