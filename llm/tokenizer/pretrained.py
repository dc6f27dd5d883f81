"""A pretrained Hugging Face tokenizer, from a folder with tokenizer.json or a hub id."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llm.errors import ConfigError, DataError, missing_package
from llm.files import read_object
from llm.tokenizer.base import CHAT_TEMPLATE, END_OF_TEXT, TableTokenizer, utf8
from llm.tokenizer.chat import with_names

if TYPE_CHECKING:
    import tokenizers

TOKENIZER_FILE = "tokenizer.json"
_SIDE_FILES = ("tokenizer_config.json", "special_tokens_map.json")
# Where a folder names no end, the usual spellings, in this order.
_USUAL_ENDS = (END_OF_TEXT, "</s>", "<eos>", "<|end_of_text|>", "[SEP]")


def _backend(source: str) -> "tokenizers.Tokenizer":
    import tokenizers  # 4 MB, for those who have such a tokenizer

    return tokenizers.Tokenizer.from_str(source)


class PretrainedTokenizer(TableTokenizer):
    """tokenizer.json run by the `tokenizers` library; what a special token spells is plain text here.

    Its own normaliser may change text (lower case, say): then `decode(encode(t))` is not `t`.
    """

    kind = "pretrained"

    def _bytes_by_id(self) -> dict[int, bytes]:
        self.backend = _backend(self.files[TOKENIZER_FILE].decode())
        self.backend.encode_special_tokens = True
        self.backend.no_truncation()
        self.backend.no_padding()
        config = json.loads(self.backend.to_str())
        self._spellings = self._spell_specials(_unknown(config["model"]))
        to_bytes = _piece_decoder(config)
        added = self.backend.get_added_tokens_decoder()
        pieces = {id_: to_bytes(piece) for piece, id_ in self.backend.get_vocab().items()}
        literal = {id_: token.content.encode() for id_, token in added.items()}
        specials = self.special_tokens.values()
        return {id_: piece for id_, piece in (pieces | literal).items() if id_ not in specials}

    def _spell_specials(self, unknown: str | None) -> dict[int, list[int]]:
        """The ids of each special token's characters, for models whose pieces hold the token itself."""
        names = {name: id_ for name, id_ in self.special_tokens.items() if name != unknown}
        reserved = set(names.values())
        tokenize = self.backend.model.tokenize
        return {
            id_: [piece.id for letter in name for piece in tokenize(letter) if piece.id not in reserved]
            for name, id_ in names.items()
        }

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text as int32 arrays, in parallel where the library may.

        No special one is among them, but for the unknown token of a tokenizer that can't spell any text.
        """
        for text in texts:
            utf8(text)
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._without_specials(np.array(encoding.ids, np.int32)) for encoding in encodings]

    def _without_specials(self, ids: np.ndarray) -> np.ndarray:
        # `encode_special_tokens` doesn't keep a unigram model from finding "</s>" among its own pieces.
        if not np.isin(ids, list(self._spellings)).any():
            return ids
        spelled = [part for id_ in ids.tolist() for part in self._spellings.get(id_, (id_,))]
        return np.array(spelled, np.int32)


def _unknown(model: dict[str, Any]) -> str | None:
    """The spelling of the token that stands for what the model doesn't know."""
    if model.get("unk_id") is not None:
        return model["vocab"][model["unk_id"]][0]
    return model.get("unk_token")


def _piece_decoder(config: dict[str, Any]) -> Callable[[str], bytes]:
    """How a piece spells bytes, by the decoder that tokenizer.json declares."""
    parts = {part["type"]: part for part in _parts(config.get("decoder"))}
    if "ByteLevel" in parts:
        return _byte_level
    if "WordPiece" in parts:
        prefix = parts["WordPiece"]["prefix"]
        return lambda piece: (piece[len(prefix) :] if piece.startswith(prefix) else " " + piece).encode()
    if "BPEDecoder" in parts:
        suffix = parts["BPEDecoder"]["suffix"]
        return lambda piece: piece.replace(suffix, " ").encode()
    fallback = "ByteFallback" in parts
    return lambda piece: _metaspace(piece, fallback)


def _parts(component: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if component and component["type"] == "Sequence":
        for part in component["decoders"]:
            yield from _parts(part)
    elif component:
        yield component


def _metaspace(piece: str, byte_fallback: bool) -> bytes:
    if byte_fallback and (byte := re.fullmatch("<0x([0-9A-F]{2})>", piece)):
        return bytes([int(byte[1], 16)])
    return piece.replace("\u2581", " ").encode()


def _byte_level(piece: str) -> bytes:
    try:
        return bytes(BYTE_LEVEL_ALPHABET[character] for character in piece)
    except KeyError:
        return piece.encode()


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte: itself where printable, else the next from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTE_LEVEL_ALPHABET = _byte_level_alphabet()


@dataclass(frozen=True)
class PretrainedSpec:
    """conf/tokenizer/pretrained.yaml: a local folder with tokenizer.json, or a Hugging Face hub id.

    `end_of_text` spells the token that separates documents; by default the tokenizer's own end.
    """

    path: str
    end_of_text: str | None = None
    needs_text = False

    def build(self, texts: Iterable[str] = ()) -> PretrainedTokenizer:
        """The tokenizer; `texts` are not read. ConfigError where nothing loads from `path`."""
        return self._tokenizer

    def fingerprint(self) -> str:
        """The hash of the tokenizer itself: another file at the same path is another tokenizer."""
        return self._tokenizer.hash

    @cached_property
    def _tokenizer(self) -> PretrainedTokenizer:
        source, named_ends, template = _read(self.path)
        backend = _backend(source)
        added = backend.get_added_tokens_decoder()
        special_tokens = {token.content: id_ for id_, token in sorted(added.items()) if token.special}
        name, end = self._end_of_text(backend, named_ends)
        files = {TOKENIZER_FILE: source.encode()} | ({CHAT_TEMPLATE: template.encode()} if template else {})
        try:
            return PretrainedTokenizer(files, special_tokens | {name: end}, end)
        except Exception as error:  # of whatever kind, from a vocabulary that is none
            raise _unreadable(self.path, error) from error

    def _end_of_text(self, backend: "tokenizers.Tokenizer", named: Sequence[str]) -> tuple[str, int]:
        names = [self.end_of_text] if self.end_of_text else [*named, *_USUAL_ENDS]
        for name in names:
            if (id_ := backend.token_to_id(name)) is not None:
                return name, id_
        raise ConfigError(
            f"The tokenizer of {self.path} has no token {' or '.join(names)} to end a text with. Set "
            "tokenizer.end_of_text to one of its tokens."
        )


Found = tuple[str, list[str], str | None]


def _read(path: str) -> Found:
    """The content of tokenizer.json, the names that its neighbours give for the end of text, and a chat template."""
    folder = Path(path)
    if folder.name == TOKENIZER_FILE:
        folder = folder.parent
    if (folder / TOKENIZER_FILE).is_file():
        return _read_folder(folder)
    return _read_with_transformers(path)


def _read_folder(folder: Path) -> Found:
    try:
        source = (folder / TOKENIZER_FILE).read_text(encoding="utf-8")
        _backend(source)
        side = [read_object(folder / name) for name in _SIDE_FILES if (folder / name).is_file()]
        template = _template(folder, side)
    except Exception as error:  # `tokenizers` raises bare Exception
        raise _unreadable(folder, error) from error
    return source, _spelled(side, "eos_token"), template


def _spelled(side: Sequence[dict[str, Any]], role: str) -> list[str]:
    """How the files beside tokenizer.json spell a special token."""
    found = [config.get(role) for config in side]
    names = [token.get("content") if isinstance(token, dict) else token for token in found]
    return [name for name in names if name and isinstance(name, str)]


def _template(folder: Path, side: Sequence[dict[str, Any]]) -> str | None:
    """The chat template, in a file of its own or in one of those; of several, the one called default."""
    named = [template for config in side if (template := config.get("chat_template"))]
    if (folder / CHAT_TEMPLATE).is_file():
        named = [(folder / CHAT_TEMPLATE).read_text(encoding="utf-8")]
    found = named[0] if named else None
    if isinstance(found, list):
        found = {one.get("name"): one.get("template") for one in found}.get("default")
    if not isinstance(found, str):
        return None
    names = {role: _spelled(side, role) for role in ("bos_token", "eos_token")}
    return with_names(found, **{role: spelled[0] for role, spelled in names.items() if spelled})


def _unreadable(where: object, error: Exception) -> DataError:
    return DataError(
        f"The tokenizer in {where} cannot be read ({error}). Copy or download its {TOKENIZER_FILE}, and what lies beside "
        "it, again."
    )


def _read_with_transformers(path: str) -> Found:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        what = f"tokenizer.path={path} is no folder with {TOKENIZER_FILE}; a hub id"
        raise missing_package(what, "transformers", "huggingface") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        backend = getattr(tokenizer, "backend_tokenizer", None)
    except Exception as error:
        raise ConfigError(
            f"tokenizer.path={path} is neither a folder with {TOKENIZER_FILE} nor a tokenizer that transformers "
            f"can load: {error}"
        ) from error
    if backend is None:
        raise ConfigError(
            f"tokenizer.path={path}: a {type(tokenizer).__name__} is code of transformers alone, and has no {TOKENIZER_FILE}."
        )
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None
    names = {role: name for role in ("bos_token", "eos_token") if (name := getattr(tokenizer, role))}
    return (
        backend.to_str(),
        [names["eos_token"]] if "eos_token" in names else [],
        template and with_names(template, **names),
    )
