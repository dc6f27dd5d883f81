"""One protocol for text to ids and back: SentencePiece, bytes, a pretrained Hugging Face tokenizer."""

from llm.tokenizer.base import (
    END_OF_TEXT,
    MASK,
    PAD,
    SENTINEL,
    SPECIAL_TOKENS,
    UNKNOWN,
    Tokenizer,
    TokenizerSpec,
    ends_of,
    framed,
    hiding_tokens,
    mask_token,
    sentinels,
    start_token,
)
from llm.tokenizer.byte import ByteSpec, ByteTokenizer
from llm.tokenizer.chat import ChatTemplate, default_template, writes_targets
from llm.tokenizer.load import load_tokenizer
from llm.tokenizer.pretrained import PretrainedSpec, PretrainedTokenizer
from llm.tokenizer.sentencepiece import SentencePieceSpec, SentencePieceTokenizer

__all__ = [
    "END_OF_TEXT",
    "MASK",
    "PAD",
    "SENTINEL",
    "SPECIAL_TOKENS",
    "UNKNOWN",
    "ByteSpec",
    "ByteTokenizer",
    "ChatTemplate",
    "PretrainedSpec",
    "PretrainedTokenizer",
    "SentencePieceSpec",
    "SentencePieceTokenizer",
    "Tokenizer",
    "TokenizerSpec",
    "default_template",
    "ends_of",
    "framed",
    "hiding_tokens",
    "load_tokenizer",
    "mask_token",
    "sentinels",
    "start_token",
    "writes_targets",
]
