"""Loading whatever tokenizer a folder holds, verified against the hash saved with it."""

from pathlib import Path

from llm.errors import DataError
from llm.tokenizer import folder
from llm.tokenizer.base import TableTokenizer, Tokenizer
from llm.tokenizer.byte import ByteTokenizer
from llm.tokenizer.pretrained import PretrainedTokenizer
from llm.tokenizer.sentencepiece import SentencePieceTokenizer

_KINDS: dict[str, type[TableTokenizer]] = {
    kind.kind: kind for kind in (ByteTokenizer, SentencePieceTokenizer, PretrainedTokenizer)
}


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer that `save` wrote to the folder `path`; DataError where it is missing or damaged."""
    description, files = folder.read(Path(path))
    kind = _KINDS.get(str(description["kind"]))
    if kind is None:
        raise DataError(f"{path} holds a tokenizer of the unknown kind {description['kind']!r}.")
    try:
        return kind(files, description["special_tokens"], description["end_of_text"])
    except Exception as error:
        # The hash vouches for the files, not for what wrote them; what reads them raises many kinds of error.
        raise DataError(
            f"The tokenizer in {path} is no {description['kind']} tokenizer ({type(error).__name__}: {error}). Prepare "
            "the data anew, or copy the folder from where it works."
        ) from error
