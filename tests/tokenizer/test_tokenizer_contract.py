"""What every tokenizer promises, on hypothesis' text and on the strings that break tokenizers."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from llm.errors import ConfigError, DataError
from llm.tokenizer import SPECIAL_TOKENS, ByteSpec, PretrainedSpec, SentencePieceSpec, load_tokenizer
from llm.tokenizer.folder import DESCRIPTION

TEXTS = [
    f"def f{n}(x):\n    return x + {n}  # naïve ▁ café, 東京 \n\n\tprint('{n * n}')\r\n" for n in range(300)
]
HARD = [
    "", " ", "  ", "\n", "\n\n \n", "\r\n\r\n", "\t\t", "\0", "a\0b", "\u2581", "a \u2581 b", "\u2581\u2581", " x ",
    "\u2585", "\ufeffbom", "\ufffd", "\U0010ffff", "\x7f\x01\x1f", "e\u0301 \u0041\u030a", "ﬁ Ⅷ ½", "👩‍👩‍👧‍👦🇩🇪", "<0x0A>",
    "".join(SPECIAL_TOKENS), "<|endoftext|>def", "  \n  indented\n    more\n", "café.", "é" * 100, "x" * 10_000, "\u3000　",
]  # fmt: skip
PIECES = st.sampled_from(
    ["\u2581", "\0", " ", "\n", "\r", "\t", "é", "def", "<|endoftext|>", "<0x0A>", "😀", "  ", "."]
)
TEXT = st.one_of(st.text(), st.lists(PIECES, max_size=20).map("".join))


def pretrained_folder(folder):
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<extra>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    return folder


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    return {
        "bpe": SentencePieceSpec("bpe", 400).build(TEXTS),
        "unigram": SentencePieceSpec("unigram", 330).build(TEXTS),
        "byte": ByteSpec().build(),
        "pretrained": PretrainedSpec(str(pretrained_folder(tmp_path_factory.mktemp("hf")))).build(),
    }


@pytest.fixture(params=["bpe", "unigram", "byte", "pretrained"], scope="module")
def tokenizer(request, tokenizers):
    return tokenizers[request.param]


def check_exact(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert not set(ids) & set(tokenizer.special_tokens.values())
    assert all(0 <= id_ < tokenizer.vocab_size for id_ in ids)


@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_any_text_decodes_to_itself(tokenizer, text):
    check_exact(tokenizer, text)


@pytest.mark.parametrize("text", HARD, ids=ascii)
def test_hard_text_decodes_to_itself(tokenizer, text):
    check_exact(tokenizer, text)


def test_a_batch_is_its_texts(tokenizer):
    batch = tokenizer.encode_batch(HARD)
    assert [ids.tolist() for ids in batch] == [tokenizer.encode(text) for text in HARD]
    assert all(isinstance(ids, np.ndarray) and ids.dtype == np.int32 for ids in batch)


def test_bytes_of_ids_concatenate(tokenizer):
    ids = tokenizer.encode("naïve 東京 😀\n")
    assert b"".join(tokenizer.decode_bytes([id_]) for id_ in ids) == "naïve 東京 😀\n".encode()
    assert tokenizer.decode_bytes(np.array(ids)) == tokenizer.decode_bytes(ids)


def test_special_and_unknown_ids_decode_to_nothing(tokenizer):
    special = list(tokenizer.special_tokens.values())
    assert tokenizer.decode([tokenizer.end_of_text, *special, tokenizer.vocab_size + 7, -1]) == ""
    assert tokenizer.special_tokens["<|endoftext|>"] == tokenizer.end_of_text


def test_a_lone_surrogate_is_refused_with_its_place(tokenizer):
    with pytest.raises(DataError, match=r"lone surrogate.*character 2"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(DataError, match="lone surrogate"):
        tokenizer.encode_batch(["fine", "\udfff"])


def test_pickle_and_folder_keep_everything(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    for copy in (pickle.loads(pickle.dumps(tokenizer)), load_tokenizer(tmp_path / "tokenizer")):
        assert copy.hash == tokenizer.hash
        assert copy.special_tokens == tokenizer.special_tokens
        assert copy.end_of_text == tokenizer.end_of_text
        assert copy.vocab_size == tokenizer.vocab_size
        assert [copy.encode(text) for text in HARD] == [tokenizer.encode(text) for text in HARD]


def test_hashes_differ(tokenizers):
    assert len({tokenizer.hash for tokenizer in tokenizers.values()}) == len(tokenizers)


def damaged_files(folder):
    return [path for path in sorted(folder.iterdir()) if path.name != DESCRIPTION]


@pytest.mark.parametrize("name", ["bpe", "pretrained"])
def test_a_flipped_bit_a_cut_or_a_missing_file_is_noticed(tokenizers, name, tmp_path):
    for index, damage in enumerate((lambda b: b[:50] + bytes([b[50] ^ 1]) + b[51:], lambda b: b[:-1], None)):
        tokenizers[name].save(folder := tmp_path / str(index))
        (path,) = damaged_files(folder)
        path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(DataError, match="damaged"):
            load_tokenizer(folder)


@pytest.mark.parametrize(
    "change",
    [
        ("<pad>", "<pat>"),
        ('"end_of_text": 2', '"end_of_text": 3'),
        ("{", "["),
        ('"kind"', '"king"'),
        ('"byte"', '"bite"'),
    ],
)
def test_an_altered_description_is_noticed(tokenizers, change, tmp_path):
    tokenizers["byte"].save(tmp_path)
    text = (tmp_path / DESCRIPTION).read_text()
    assert change[0] in text
    (tmp_path / DESCRIPTION).write_text(text.replace(*change))
    with pytest.raises(DataError):
        load_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer_says_so(tmp_path):
    with pytest.raises(DataError, match="holds no tokenizer"):
        load_tokenizer(tmp_path / "nothing")


@pytest.mark.parametrize("tokens", [(), ("<unk>", "<pad>"), ("<unk>", "<pad>", "<|endoftext|>", "<pad>")])
def test_special_tokens_are_checked(tokens):
    with pytest.raises(ConfigError, match="special_tokens"):
        ByteSpec(tokens)
