"""Tokenizers as GGUF's metadata, written so that llama.cpp gives the ids that ours give, and read back."""

import json
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from llm.errors import CheckpointError, ConfigError
from llm.hub.rules import Values
from llm.tokenizer import PAD, ChatTemplate, PretrainedTokenizer, Tokenizer
from llm.tokenizer.chat import with_names, without_generation
from llm.tokenizer.huggingface import merges_of, to_backend
from llm.tokenizer.pretrained import TOKENIZER_FILE

CHAT_TEMPLATE = "tokenizer.chat_template"
NORMAL, UNKNOWN_TYPE, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SPACE_MARK = "\u2581"  # a space, in SentencePiece's spelling
UNLIKE = ("continuing_subword_prefix", "end_of_word_suffix", "dropout")
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


def write(tokenizer: Tokenizer, rows: int) -> Values:
    """The metadata of `tokenizer` for a model of so many `rows`; a ConfigError says what there is no place for.

    llama.cpp adds no token to a text, as ours don't.
    """
    config = json.loads(to_backend(tokenizer).to_str())
    kind = config["model"]["type"]
    if kind == "Unigram":
        raise _no_place(
            "a unigram model: llama.cpp's gives what has no piece the unknown token, not its bytes"
        )
    if kind != "BPE" or any(config["model"].get(key) for key in UNLIKE):
        raise _no_place(f"a {kind} model, where llama.cpp has BPE without marks on parts of words")
    spellings, types = _vocabulary(config, tokenizer.special_tokens, rows)
    make = _pieces if config["model"]["byte_fallback"] else _byte_level
    made = {"tokens": spellings, "token_type": types} | make(config, spellings, types)
    ids = {"bos": tokenizer.end_of_text, "eos": tokenizer.end_of_text}
    ids |= {
        role: tokenizer.special_tokens[name]
        for role, name in (("unknown", config["model"]["unk_token"]), ("padding", PAD))
        if name in tokenizer.special_tokens
    }
    made |= {f"{role}_token_id": id_ for role, id_ in ids.items()}
    made |= {"add_bos_token": False, "add_eos_token": False}
    chat = {}
    if tokenizer.chat_template is not None:
        chat = {CHAT_TEMPLATE: without_generation(tokenizer.chat_template)}
        made["eot_token_id"] = ChatTemplate(tokenizer).stop_ids[0]
    return {f"tokenizer.ggml.{key}": value for key, value in made.items()} | chat


def _no_place(what: str) -> ConfigError:
    return ConfigError(
        f"GGUF has no place for this tokenizer: {what}. Use format=hf, or train with tokenizer=bpe."
    )


def _vocabulary(config: dict[str, Any], special: Mapping[str, int], rows: int) -> tuple[list[str], list[int]]:
    """The spelling and the type of every id; llama.cpp wants a token for each row of the model."""
    spelled = {id_: token for token, id_ in config["model"]["vocab"].items()}
    types = dict.fromkeys(spelled, NORMAL)
    for token in config["added_tokens"]:
        spelled[token["id"]] = token["content"]
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    for name, id_ in special.items():
        types[id_] = UNKNOWN_TYPE if name == config["model"]["unk_token"] else CONTROL
    if config["model"]["byte_fallback"]:
        types |= {id_: BYTE for id_, token in spelled.items() if token in BYTES}
    ids = range(max(rows, max(spelled) + 1))
    return [spelled.get(id_, f"[PAD{id_}]") for id_ in ids], [types.get(id_, UNUSED) for id_ in ids]


def _pieces(config: dict[str, Any], spellings: list[str], types: list[int]) -> Values:
    """SentencePiece's BPE, every piece with a score: the highest is merged first, and bytes are for what has no piece."""
    if config["pre_tokenizer"] is not None:
        raise _no_place(f"a BPE over characters that is cut by {json.dumps(config['pre_tokenizer'])}")
    prefixed = _adds_space(config["normalizer"])
    scores = _scores([(_spaced(left), _spaced(right)) for left, right in config["model"]["merges"]])
    spaced = [
        _spaced(token) if type_ == NORMAL else token for token, type_ in zip(spellings, types, strict=True)
    ]
    _check_apart(spaced, types)
    return {
        "model": "llama",
        "pre": "default",
        "tokens": [
            token.replace(" ", SPACE_MARK) if type_ == NORMAL else token
            for token, type_ in zip(spaced, types, strict=True)
        ],
        "scores": [scores.get(token, -float(len(scores))) for token in spaced],
        "add_space_prefix": prefixed,
    }


def _spaced(piece: str) -> str:
    return piece.replace(SPACE_MARK, " ")


def _adds_space(normalizer: dict[str, Any] | None) -> bool:
    """Whether a text gets a space before it; a ConfigError where anything else happens to it."""
    parts = (normalizer or {"type": "Sequence", "normalizers": []}).get("normalizers", [normalizer])
    for part in parts:
        marks = part["type"] == "Replace" and {part["content"], part["pattern"].get("String")} == {
            " ",
            SPACE_MARK,
        }
        if not marks and not (part["type"] == "Prepend" and _spaced(part["prepend"]) == " "):
            raise _no_place(f"the normalizer {json.dumps(part)}")
    return any(part["type"] == "Prepend" for part in parts)


def _scores(merges: list[tuple[str, str]]) -> dict[str, float]:
    """A score for each piece by which any two neighbours that make it up may be merged, with the outcome of `merges`."""
    ranks = {pair: -float(rank) for rank, pair in reversed(list(enumerate(merges)))}
    scores: dict[str, float] = {}
    for (left, right), score in sorted(ranks.items(), key=lambda item: -item[1]):
        scores.setdefault(left + right, score)
    met = [ranks.get(pair, 1.0) for pair in merges_of(scores)]
    if met != sorted(met, reverse=True) or 1.0 in met:
        raise _no_place("a BPE whose merges do not follow from scores of its pieces, as SentencePiece's do")
    return scores


def _check_apart(spellings: list[str], types: list[int]) -> None:
    """Refuse a vocabulary two of whose pieces spell a special token or a byte: llama.cpp would merge them into it."""
    typed = list(zip(spellings, types, strict=True))
    pieces = {token for token, type_ in typed if type_ == NORMAL}
    for name in (token for token, type_ in typed if type_ != NORMAL):
        for cut in range(1, len(name)):
            if name[:cut] in pieces and name[cut:] in pieces:
                raise _no_place(
                    f"its pieces {name[:cut]!r} and {name[cut:]!r} spell {name!r}, which llama.cpp would take for that token"
                )


def _byte_level(config: dict[str, Any], spellings: list[str], types: list[int]) -> Values:
    """A BPE over bytes."""
    merges = [" ".join(pair) for pair in config["model"]["merges"]]
    return {"model": "gpt2", "pre": _cut_of(config), "merges": merges, "add_space_prefix": False}


def _cut_of(config: dict[str, Any]) -> str:
    """llama.cpp's name for how a tokenizer.json cuts text; a ConfigError where it has none."""
    model, cut = config["model"], config["pre_tokenizer"]
    if "ByteLevel" not in json.dumps(cut):
        raise _no_place("a BPE over characters without byte fallback")
    # Where a tokenizer composes characters (NFC), llama.cpp takes the text as it is: so do its own files of Qwen2.
    if (config["normalizer"] or {"type": "NFC"})["type"] != "NFC":
        raise _no_place(f"the normalizer {json.dumps(config['normalizer'])}")
    for name, known in CUTS.items():
        if _same(cut, known) and model["ignore_merges"] == (name in WHOLE_WORDS):
            return name
    if not model["merges"]:
        return "qwen2"  # nothing is merged, however text is cut
    raise _no_place(
        f"the pre_tokenizer {json.dumps(cut)}, where llama.cpp's are known here of {', '.join(CUTS)}"
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
        end = range(len(said["tokens"]))[said["eos_token_id"]]
        files = {TOKENIZER_FILE: backend.to_str().encode()}
        tokenizer = PretrainedTokenizer(files, special | {said["tokens"][end]: end}, end)
        template = metadata.get(CHAT_TEMPLATE)
        names = {
            f"{role}_token": said["tokens"][said[key]]
            for role in ("bos", "eos")
            if (key := f"{role}_token_id") in said
        }
        return tokenizer.with_chat_template(with_names(template, **names)) if template else tokenizer
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
