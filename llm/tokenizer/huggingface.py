"""Our tokenizers as Hugging Face's `tokenizers` runs them: the same ids for every text, special tokens apart from it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from llm.errors import ConfigError
from llm.tokenizer.base import MASK, PAD, UNKNOWN, Tokenizer
from llm.tokenizer.byte import ByteTokenizer
from llm.tokenizer.pretrained import BYTE_LEVEL_ALPHABET, TOKENIZER_FILE, PretrainedTokenizer
from llm.tokenizer.sentencepiece import SCORE_STEP, SentencePieceTokenizer

# What transformers calls special tokens, by the spellings that they have in ours and in others' vocabularies.
ROLES = {
    "unk_token": (UNKNOWN, "[UNK]"),
    "pad_token": (PAD, "[PAD]"),
    "mask_token": (MASK, "[MASK]"),
    "cls_token": ("<cls>", "[CLS]"),
    "sep_token": ("<sep>", "[SEP]"),
}


def to_backend(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """The tokenizer whose tokenizer.json gives the ids that `tokenizer` gives, and nothing beside them.

    What a special token spells is plain text to it as long as `encode_special_tokens` is set, which the file doesn't
    keep. A ConfigError says what can't be expressed.
    """
    if isinstance(tokenizer, PretrainedTokenizer):
        return _of_file(tokenizer)
    for name in tokenizer.special_tokens:
        if len(name) == 1:
            raise ConfigError(
                f"tokenizer.special_tokens={name!r}: a special token of one character can't be told from that "
                "character of a text by Hugging Face's tokenizers. Export needs longer ones."
            )
    if isinstance(tokenizer, ByteTokenizer):
        backend = _of_bytes(tokenizer)
    elif isinstance(tokenizer, SentencePieceTokenizer):
        backend = _of_pieces(tokenizer)
    else:
        raise ConfigError(f"There is no way to write a {type(tokenizer).__name__} for Hugging Face.")
    by_id = sorted(tokenizer.special_tokens, key=tokenizer.special_tokens.__getitem__)
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in by_id])
    backend.encode_special_tokens = True
    return backend


def _of_file(tokenizer: PretrainedTokenizer) -> tokenizers.Tokenizer:
    """The file as it came, less what adds to a text, shortens it or fills it up."""
    content = json.loads(tokenizer.files[TOKENIZER_FILE])
    content |= {"truncation": None, "padding": None, "post_processor": None}
    backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    backend.encode_special_tokens = True
    return backend


def _of_bytes(tokenizer: ByteTokenizer) -> tokenizers.Tokenizer:
    first = len(tokenizer.special_tokens)
    letters = {letter: first + byte for letter, byte in BYTE_LEVEL_ALPHABET.items()}
    backend = tokenizers.Tokenizer(models.BPE(tokenizer.special_tokens | letters, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _of_pieces(tokenizer: SentencePieceTokenizer) -> tokenizers.Tokenizer:
    """No normaliser: a space stands in the pieces as itself, so that U+2581 in a text falls back to bytes as here."""
    if tokenizer.algorithm == "bpe":
        backend = tokenizers.Tokenizer(_bpe(tokenizer))
    else:
        backend = tokenizers.Tokenizer(_unigram(tokenizer))
        backend.pre_tokenizer = _apart(_unknown_in_spellings(tokenizer))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return backend


def _bpe(tokenizer: SentencePieceTokenizer) -> models.BPE:
    merges = merges_of({piece: score for _, piece, score in tokenizer.pieces()})
    vocab = {spelling: id_ for id_, spelling in _spellings(tokenizer)}
    return models.BPE(vocab, merges, unk_token=UNKNOWN, byte_fallback=True)


def merges_of(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Every piece of a SentencePiece BPE by its one merge, those of higher scores first.

    SentencePiece merges whichever neighbours make up a piece, the leftmost first. But of the characters of one piece
    its merges always leave the same two parts last, whatever stands beside them, since a merge across the piece's
    edge would have kept it from being made: so the pair that the piece alone comes to is the only one ever met.
    """
    ranked = sorted(scores, key=scores.__getitem__, reverse=True)
    return [pair for piece in ranked if len(piece) > 1 and (pair := _last_pair(piece, scores))]


def _last_pair(piece: str, scores: Mapping[str, float]) -> tuple[str, str] | None:
    """The two parts that are merged last where `piece` is made of its characters; None where it can't be."""
    parts = list(piece)
    while len(parts) > 2:
        options = [(scores[a + b], -place) for place, (a, b) in enumerate(pairwise(parts)) if a + b in scores]
        if not options:
            return None
        place = -max(options)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]


def _unigram(tokenizer: SentencePieceTokenizer) -> models.Unigram:
    """The pieces with their scores, whose sums are exact in float32 (SentencePiece) as in float64 (here)."""
    scores = {id_: score for id_, _, score in tokenizer.pieces()}
    if any(score % SCORE_STEP for score in scores.values()):
        raise ConfigError(
            "The unigram tokenizer's scores are no multiples of 1/64, as every one has that is trained today: their "
            "sums are rounded in float32 here and in float64 by Hugging Face's tokenizers, which would choose other "
            "pieces where two ways are nearly as good. Train a tokenizer anew, and a model with it."
        )
    # They are looked for in texts there: worse than any other way to spell them, of whose characters each has a piece.
    longest = max(len(spelling) for _, spelling in _spellings(tokenizer))
    never = (longest + 1) * min(scores.values())
    vocab = [(spelling, scores.get(id_, never)) for id_, spelling in _spellings(tokenizer)]
    return models.Unigram(vocab, tokenizer.special_tokens[UNKNOWN], byte_fallback=True)


def _unknown_in_spellings(tokenizer: SentencePieceTokenizer) -> list[str]:
    """The characters without a piece that spell special tokens and bytes."""
    known = {piece for _, piece, _ in tokenizer.pieces()}
    pieces = {id_ for id_, _, _ in tokenizer.pieces()}
    others = "".join(spelling for id_, spelling in _spellings(tokenizer) if id_ not in pieces)
    return sorted(set(others) - known)


def _apart(characters: Sequence[str]) -> pre_tokenizers.PreTokenizer | None:
    """Set each of `characters`, of no piece, apart; a unigram model would prefer all that they spell to an unknown one."""
    if not characters:
        return None
    codes = "".join(rf"\x{{{ord(character):X}}}" for character in characters)
    return pre_tokenizers.Split(Regex(f"[{codes}]"), "isolated")


def _spellings(tokenizer: SentencePieceTokenizer) -> Iterator[tuple[int, str]]:
    """Each id with how Hugging Face spells it: bytes as <0x0A>, special tokens by name, and pieces as they are."""
    pieces = {id_: piece for id_, piece, _ in tokenizer.pieces()}
    for id_ in range(tokenizer.vocab_size):
        yield id_, pieces.get(id_) or tokenizer.processor.id_to_piece(id_)


def tokenizer_config(tokenizer: Tokenizer, max_length: int, *, as_text: bool) -> dict[str, Any]:
    """The content of tokenizer_config.json, which lets AutoTokenizer load a tokenizer.json of `to_backend`.

    Args:
        tokenizer: ours.
        max_length: the most tokens that the model sees.
        as_text: whether what special tokens spell in a text stays text, as it does here.
    """
    names = {id_: name for name, id_ in tokenizer.special_tokens.items()}
    end = names[tokenizer.end_of_text]
    roles = {"bos_token": end, "eos_token": end} | {
        role: name for role, options in ROLES.items() for name in options if name in tokenizer.special_tokens
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": as_text,
        **({} if tokenizer.chat_template is None else {"chat_template": tokenizer.chat_template}),
        **roles,
        "additional_special_tokens": [name for name in names.values() if name not in roles.values()],
    }
