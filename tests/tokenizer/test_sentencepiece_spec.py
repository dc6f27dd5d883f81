"""SentencePiece training: repeatable, bounded, with errors that say what would work; and their ids."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llm.errors import ConfigError, DataError
from llm.tokenizer import SPECIAL_TOKENS, SentencePieceSpec
from llm.tokenizer.sample import lines, sample_texts

TEXTS = [Path(path).read_text("utf-8") for path in (re.__file__, subprocess.__file__)]
MIXED = TEXTS[1] + " «naïve».\n  “Ça va?”—‘oui’…\n東京、大阪。x=1,234;y\n\n\t\tÜber_größe.2 \n" * 30


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request):
    return SentencePieceSpec(request.param, 700).build([MIXED])


def test_specials_come_first_then_the_bytes(tokenizer):
    assert tokenizer.vocab_size == 700
    assert list(tokenizer.special_tokens.items()) == [(name, id_) for id_, name in enumerate(SPECIAL_TOKENS)]
    assert [tokenizer.decode_bytes([len(SPECIAL_TOKENS) + b]) for b in range(256)] == [
        bytes([b]) for b in range(256)
    ]


def test_a_trained_model_makes_every_kind_of_piece(tokenizer):
    pieces = [piece.decode() for piece in tokenizer._table.values() if len(piece) > 1]
    assert sum("\n" in piece for piece in pieces) > 3
    assert sum(piece.startswith(" ") for piece in pieces) > 30


def test_word_by_word_the_ids_of_bpe_are_those_of_the_whole():
    tokenizer = SentencePieceSpec("bpe", 700).build([MIXED])
    for text in (*TEXTS, MIXED):
        assert tokenizer.encode(text) == tokenizer.processor.encode(text)


def test_word_by_word_unigram_changes_only_between_equals():
    """Over a whole text SentencePiece adds up float32, whose rounding decides near-ties."""
    tokenizer = SentencePieceSpec("unigram", 700).build([MIXED])
    for text in TEXTS:
        cut, whole = tokenizer.encode(text), tokenizer.processor.encode(text)
        assert sum(a != b for a, b in zip(cut, whole, strict=True)) < len(whole) / 100
        scores = [sum(map(tokenizer.processor.get_score, ids)) for ids in (cut, whole)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def test_the_space_mark_is_three_bytes_and_a_space_is_not(tokenizer):
    first_byte = len(SPECIAL_TOKENS)
    assert tokenizer.encode("\u2581") == [first_byte + byte for byte in "\u2581".encode()]
    assert tokenizer.encode("a\u2581b") != tokenizer.encode("a b")


TRAIN = """
import sys
from llm.tokenizer import SentencePieceSpec
print(SentencePieceSpec(sys.argv[1], 500).build([open(sys.argv[2], encoding="utf-8").read()]).hash)
"""


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_training_again_in_another_process_gives_the_same_hash(algorithm):
    here = SentencePieceSpec(algorithm, 500).build([TEXTS[0]]).hash
    command = [sys.executable, "-c", TRAIN, algorithm, re.__file__]
    there = subprocess.run(
        command, capture_output=True, text=True, check=True, env=dict(_environment(), OMP_NUM_THREADS="3")
    )
    assert there.stdout.strip() == here


def _environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_a_vocabulary_beyond_the_text_names_the_largest_that_works(algorithm):
    with pytest.raises(DataError, match=r"tokenizer\.vocab_size=5000 is larger") as error:
        SentencePieceSpec(algorithm, 5000).build(["hello there, general\n"] * 9)
    largest = int(re.search(r"tokenizer\.vocab_size=(\d+)\.", str(error.value))[1])
    assert SentencePieceSpec(algorithm, largest).build(["hello there, general\n"] * 9).vocab_size == largest
    with pytest.raises(DataError):
        SentencePieceSpec(algorithm, largest + 1).build(["hello there, general\n"] * 9)


def test_a_vocabulary_below_the_characters_names_the_smallest_that_works():
    text = "".join(map(chr, range(0x4E00, 0x5000)))
    with pytest.raises(DataError, match="too small for the characters") as error:
        SentencePieceSpec("bpe", 300).build([text])
    smallest = int(re.search(r"at least tokenizer\.vocab_size=(\d+)", str(error.value))[1])
    assert SentencePieceSpec("bpe", smallest).build([text]).vocab_size == smallest


@pytest.mark.parametrize("texts", [[], [""], ["", " \n\t\r\n"], ["\0\u2581"]])
def test_no_text_is_an_error(texts):
    with pytest.raises(DataError, match="no text to learn from"):
        SentencePieceSpec("bpe", 300).build(texts)


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match=r"algorithm.*bpe.*unigram"):
        SentencePieceSpec("bpee", 300)
    with pytest.raises(ConfigError, match=r"vocab_size is 264.*above 264"):
        SentencePieceSpec("bpe", 264)
    with pytest.raises(ConfigError, match="sample_bytes"):
        SentencePieceSpec("bpe", 300, sample_bytes=0)
    with pytest.raises(ConfigError, match="no more of a corpus is read"):
        SentencePieceSpec("bpe", 300, sample_bytes=1 + (1 << 27))


def test_the_fingerprint_follows_the_settings():
    spec = SentencePieceSpec("bpe", 300)
    assert spec.fingerprint() == SentencePieceSpec("bpe", 300, list(SPECIAL_TOKENS)).fingerprint()
    others = [
        SentencePieceSpec("unigram", 300),
        SentencePieceSpec("bpe", 301),
        SentencePieceSpec("bpe", 300, sample_bytes=9),
    ]
    assert len({spec.fingerprint() for spec in (spec, *others)}) == 4


def test_training_takes_long_lines_nul_and_newlines():
    texts = ["x" * 100_000 + "\0" + "word " * 20_000 + "\n" * 5_000, "\u2581only marks\u2581 \r\n\r\n"]
    tokenizer = SentencePieceSpec("bpe", 280).build(texts)
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(texts)] == texts


def test_a_sample_is_whole_below_the_budget_and_bounded_and_even_above_it():
    texts = [f"document {n}\n" * 500 for n in range(400)]
    assert "".join(sample_texts(texts, 10**9)) == "".join(texts)
    sample = sample_texts(iter(texts), 200_000)
    assert sample == sample_texts(texts, 200_000)
    assert 180_000 < sum(map(len, sample)) <= 200_000
    numbers = [int(chunk.split(maxsplit=2)[1]) for chunk in sample]
    assert numbers == sorted(numbers)
    assert 150 < sum(numbers) / len(numbers) < 250


def test_a_line_keeps_its_newlines_and_loses_what_no_piece_may_hold():
    assert list(lines(["a\0b\u2581\n\nc", "d\n"])) == ["ab\n\n", "c", "d\n"]
