"""Tokenizers as GGUF's metadata, written so that llama.cpp gives the ids that ours give, and read back."""

import json
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from llm.errors import CheckpointError, ConfigError
from llm.hub.rules import Values
from llm.tokenizer import PAD, UNKNOWN, PretrainedTokenizer, SentencePieceTokenizer, Tokenizer
from llm.tokenizer.huggingface import merges_of, to_backend
from llm.tokenizer.pretrained import TOKENIZER_FILE

NORMAL, UNKNOWN_TYPE, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SPACE_MARK = "\u2581"  # a space, in SentencePiece's spelling
BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT_FORMS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"


def _split(numbers: str) -> pre_tokenizers.PreTokenizer:
    pattern = Regex("|".join((_SHORT_FORMS, _WORDS, numbers, _OTHERS)))
    whole_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), whole_bytes])


_GPT2_WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)
# How text is cut before merges, by llama.cpp's names: `tokenizer.ggml.pre`.
CUTS = {
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2_WORDS]),
    "gpt-2": _GPT2_WORDS,
    "qwen2": _split(r"\p{N}"),
    "llama-bpe": _split(r"\p{N}{1,3}"),
}
# Those under which llama.cpp takes a word that is a token as it is, without merges.
WHOLE_WORDS = {"llama-bpe"}


def write(tokenizer: Tokenizer) -> Values:
    """The metadata of `tokenizer`; a ConfigError says what there is no place for.

    llama.cpp adds no token to a text, as ours don't.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        made = _pieces(tokenizer)
    else:
        made = _byte_level(json.loads(to_backend(tokenizer).to_str()))
    ids = {"bos": tokenizer.end_of_text, "eos": tokenizer.end_of_text}
    ids |= {
        role: tokenizer.special_tokens[name]
        for role, name in (("unknown", UNKNOWN), ("padding", PAD))
        if name in tokenizer.special_tokens
    }
    made |= {f"{role}_token_id": id_ for role, id_ in ids.items()}
    made |= {"add_bos_token": False, "add_eos_token": False, "add_space_prefix": False}
    return {f"tokenizer.ggml.{key}": value for key, value in made.items()}


def _pieces(tokenizer: SentencePieceTokenizer) -> Values:
    """SentencePiece's BPE: pieces with scores, the highest merged first, and bytes for what has no piece."""
    if tokenizer.algorithm != "bpe":
        raise ConfigError(
            "GGUF has no place for a unigram tokenizer with byte fallback: llama.cpp gives every character without a "
            "piece the unknown token. Use tokenizer=bpe, or format=hf."
        )
    processor = tokenizer.processor
    pieces = {id_: (piece.replace(" ", SPACE_MARK), score) for id_, piece, score in tokenizer.pieces()}
    others = [processor.id_to_piece(id_) for id_ in range(tokenizer.vocab_size)]
    types = dict.fromkeys(tokenizer.special_tokens, CONTROL) | dict.fromkeys(BYTES, BYTE)
    types[UNKNOWN] = UNKNOWN_TYPE
    tokens = [pieces[id_][0] if id_ in pieces else name for id_, name in enumerate(others)]
    _check_apart({piece for piece, _ in pieces.values()}, set(types))
    return {
        "model": "llama",
        "pre": "default",
        "tokens": tokens,
        "scores": [pieces[id_][1] if id_ in pieces else 0.0 for id_ in range(len(tokens))],
        "token_type": [NORMAL if id_ in pieces else types[name] for id_, name in enumerate(tokens)],
    }


def _check_apart(pieces: set[str], reserved: set[str]) -> None:
    """Refuse a vocabulary two of whose pieces spell a special token or a byte: llama.cpp would merge them into it."""
    for name in sorted(reserved):
        for cut in range(1, len(name)):
            if name[:cut] in pieces and name[cut:] in pieces:
                raise ConfigError(
                    f"GGUF has no place for this tokenizer: its pieces {name[:cut]!r} and {name[cut:]!r} spell the "
                    f"special token {name!r}, and llama.cpp would take such a text for that token."
                )


def _byte_level(config: dict[str, Any]) -> Values:
    """A BPE over bytes, from a tokenizer.json."""
    model = config["model"]
    pre = _cut_of(config)
    added = {token["id"]: token for token in config["added_tokens"]}
    spellings = {id_: token for token, id_ in model["vocab"].items()}
    spellings |= {id_: token["content"] for id_, token in added.items()}
    tokens = [spellings.get(id_, f"[PAD{id_}]") for id_ in range(max(spellings) + 1)]
    types = {id_: CONTROL if token["special"] else USER_DEFINED for id_, token in added.items()}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    return {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [types.get(id_, NORMAL if id_ in spellings else UNUSED) for id_ in range(len(tokens))],
        "merges": merges,
    }


def _cut_of(config: dict[str, Any]) -> str:
    """llama.cpp's name for how a tokenizer.json cuts text; a ConfigError where it has none."""
    model, cut = config["model"], config["pre_tokenizer"]
    unlike = {"continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "dropout"}
    if model["type"] != "BPE" or any(model.get(key) for key in unlike) or "ByteLevel" not in json.dumps(cut):
        raise ConfigError(
            f"GGUF has no place for this tokenizer: a {model['type']} model that is no BPE over bytes (ByteLevel)"
        )
    if (config["normalizer"] or {"type": "NFC"})["type"] != "NFC":
        raise ConfigError(
            f"GGUF has no place for this tokenizer's normalizer, {config['normalizer']['type']}: llama.cpp has none"
        )
    for name, known in CUTS.items():
        if _same(cut, known) and model.get("ignore_merges", False) == (name in WHOLE_WORDS):
            return name
    if not model["merges"]:
        return "qwen2"  # nothing is merged, however text is cut
    raise ConfigError(
        f"GGUF has no place for this tokenizer's pre_tokenizer, {json.dumps(cut)}: llama.cpp knows {', '.join(CUTS)}"
    )


def _same(cut: Any, known: pre_tokenizers.PreTokenizer) -> bool:
    """Whether a pre_tokenizer of a tokenizer.json cuts as `known` does, apart from where offsets are trimmed."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = known
    return _plain(cut) == _plain(json.loads(backend.to_str())["pre_tokenizer"])


def _plain(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: _plain(value) for key, value in part.items() if key != "trim_offsets"}
    return [_plain(entry) for entry in part] if isinstance(part, list) else part


def read(metadata: Values, where: str) -> PretrainedTokenizer:
    """The tokenizer of a file, as llama.cpp runs it on text.

    Raises:
        ConfigError: it is of a kind that isn't read.
        CheckpointError: it is damaged.
    """
    prefix = "tokenizer.ggml."
    said = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    kind, cut = said.get("model"), said.get("pre")
    if kind not in READERS:
        raise ConfigError(
            f"{where}: tokenizer.ggml.model={kind!r} is not supported, only {', '.join(READERS)}"
        )
    if kind == "gpt2" and cut not in CUTS:
        raise ConfigError(f"{where}: tokenizer.ggml.pre={cut!r} is not supported, only {', '.join(CUTS)}")
    try:
        backend = READERS[kind](said)
        special = _add(backend, said)
        end = said["eos_token_id"]
        files = {TOKENIZER_FILE: backend.to_str().encode()}
        return PretrainedTokenizer(files, special | {said["tokens"][end]: end}, end)
    except Exception as error:  # of whatever kind, from metadata that fits nowhere
        raise CheckpointError(
            f"{where}: its tokenizer is damaged ({type(error).__name__}: {error})"
        ) from error


def _read_byte_level(said: Values) -> tokenizers.Tokenizer:
    # A token may begin with a space, but is never empty.
    merges = [(merge[:at], merge[at + 1 :]) for merge in said["merges"] if (at := merge.find(" ", 1)) > 0]
    vocab = {token: id_ for id_, token in enumerate(said["tokens"])}
    backend = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=said["pre"] in WHOLE_WORDS))
    backend.pre_tokenizer = CUTS[said["pre"]]
    backend.decoder = decoders.ByteLevel()
    return backend


def _read_pieces(said: Values) -> tokenizers.Tokenizer:
    types = said["token_type"]
    spellings = [
        token.replace(SPACE_MARK, " ") if type_ == NORMAL else token
        for token, type_ in zip(said["tokens"], types, strict=True)
    ]
    scored = zip(spellings, said["scores"], types, strict=True)
    merges = merges_of({piece: score for piece, score, type_ in scored if type_ == NORMAL})
    vocab = {token: id_ for id_, token in enumerate(spellings)}
    unknown = spellings[said.get("unknown_token_id", 0)]
    backend = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token=unknown, byte_fallback=True))
    marks = normalizers.Replace(SPACE_MARK, " ")
    prefixed = said.get("add_space_prefix", True)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(" "), marks]) if prefixed else marks
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return backend


def _add(backend: tokenizers.Tokenizer, said: Values) -> dict[str, int]:
    """Set apart from text what the file sets apart; the special ones among them."""
    typed = list(enumerate(zip(said["tokens"], said.get("token_type", []), strict=False)))
    special = {token: id_ for id_, (token, type_) in typed if type_ in (CONTROL, UNKNOWN_TYPE)}
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    plain = [token for _, (token, type_) in typed if type_ == USER_DEFINED]
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return special


READERS = {"llama": _read_pieces, "gpt2": _read_byte_level}
