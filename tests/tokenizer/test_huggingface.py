"""AutoTokenizer on what we export: the ids that we give, and the same text back, for any text."""

import json
import os
from pathlib import Path

import pytest
import tokenizers as hf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llm.data.sources.stdlib import stdlib_folder
from llm.errors import ConfigError
from llm.tokenizer import SPECIAL_TOKENS, ByteSpec, PretrainedSpec, SentencePieceSpec, SentencePieceTokenizer
from llm.tokenizer.huggingface import to_backend, tokenizer_config
from llm.tokenizer.sentencepiece import MODEL_FILE

DATA = Path(os.environ.get("LLM_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared/data"))
ODD = [
    "漢字かな交じり文。東京は日本の首都。\n\n", "😀😁😂 🤣😃", "ааббвв  абв\t", "ééàà  ça\r\n", "aaaaaaa aaaa aaa", "\u3000　x", "𝔘𝔫𝔦",
] * 60  # fmt: skip
PIECES = [
    *SPECIAL_TOKENS, "<0x0A>", "<0xE2>", "\u2581", "\u2581\u2581", "\0", " ", "  ", "      ", "\n", "\n\n", "\r", "\t", "\x7f", "\x1b[0m",
    "é", "e\u0301", "def", "    return ", "=====", "0000", "a", "aa", "aaa", "東京", "漢", "абв", "😀", "👩‍👩‍👧", "🇩🇪", "\ufeff", "\ufffd", "\U0010ffff", ".",
]  # fmt: skip
TEXT = st.one_of(
    st.text(),
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
    st.text(st.sampled_from(" \n\tab=0é😀"), max_size=60),
    st.binary(max_size=60).map(lambda data: data.decode("latin-1")),
)


def embedded() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(stdlib_folder().glob("*.py"))[:40]]


def pretrained(folder):
    backend = hf.Tokenizer(hf.models.BPE())
    backend.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = hf.decoders.ByteLevel()
    alphabet = hf.pre_tokenizers.ByteLevel.alphabet()
    specials = ["<|endoftext|>", "<pad>", "<mask>"]
    trainer = hf.trainers.BpeTrainer(
        vocab_size=500, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(ODD, trainer)
    # What adds to a text, fills it up and shortens it must not come along.
    ends = [("<|endoftext|>", 0)]
    backend.post_processor = hf.processors.TemplateProcessing("<|endoftext|> $A", special_tokens=ends)
    backend.enable_truncation(5)
    backend.enable_padding(length=9)
    backend.save(str(folder / "tokenizer.json"))
    return folder


MAKERS = {
    "bpe": lambda folder: SentencePieceSpec("bpe", 2000).build(embedded()),
    "bpe_odd": lambda folder: SentencePieceSpec("bpe", 350).build(ODD),
    "bpe_all_characters": lambda folder: SentencePieceSpec("bpe", 360, character_coverage=1.0).build(ODD),
    "unigram": lambda folder: SentencePieceSpec("unigram", 1000, sample_bytes=400_000).build(embedded()),
    "unigram_odd": lambda folder: SentencePieceSpec("unigram", 305).build(ODD),
    "byte": lambda folder: ByteSpec().build(),
    "pretrained": lambda folder: PretrainedSpec(str(pretrained(folder))).build(),
}


def loaded(tokenizer, folder, **options):
    to_backend(tokenizer).save(str(folder / "tokenizer.json"))
    content = tokenizer_config(tokenizer, 1 << 30, as_text=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return AutoTokenizer.from_pretrained(folder, **options)


@pytest.fixture(params=MAKERS, scope="module")
def both(request, tmp_path_factory):
    """Ours, and what AutoTokenizer makes of its export."""
    ours = MAKERS[request.param](tmp_path_factory.mktemp("source"))
    return ours, loaded(ours, tmp_path_factory.mktemp("exported"))


def check_same(both, text):
    ours, theirs = both
    ids = theirs(text)["input_ids"]
    assert ids == ours.encode(text)
    assert theirs.decode(ids) == text


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=TEXT)
def test_any_text_has_the_same_ids(both, text):
    check_same(both, text)


@pytest.mark.parametrize(
    "text", ["", *PIECES, "x" * 20_000, " " * 5000, "ab" * 9000, "\0" * 99], ids=lambda t: ascii(t[:20])
)
def test_hard_text_has_the_same_ids(both, text):
    check_same(both, text)


# Those of a few hundred pieces cut a file into as many tokens as it has characters, and take the longest; random and hard
# text goes through all of them.
@pytest.mark.parametrize(
    "both",
    [
        pytest.param(name, marks=pytest.mark.slow if name.endswith(("_odd", "_all_characters")) else ())
        for name in MAKERS
    ],
    indirect=True,
)
def test_real_files_have_the_same_ids(both):
    for path in sorted(stdlib_folder().glob("*.py")):
        check_same(both, path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_other_corpora_have_the_same_ids(both):
    files = [
        path
        for path in sorted((DATA / "corpora").rglob("*"))
        if path.is_file() and path.suffix in (".txt", ".jsonl", ".md")
    ]
    if not files:
        pytest.skip(f"no corpora in {DATA}")
    for path in files:
        check_same(both, path.read_bytes()[:2_000_000].decode("utf-8", errors="replace"))


def test_every_id_has_its_place(both):
    ours, theirs = both
    assert len(theirs) == ours.vocab_size
    assert {name: theirs.convert_tokens_to_ids(name) for name in ours.special_tokens} == ours.special_tokens
    assert (theirs.eos_token_id, theirs.bos_token_id) == (ours.end_of_text, ours.end_of_text)
    assert theirs.mask_token_id == ours.special_tokens["<mask>"]
    assert theirs.pad_token_id == ours.special_tokens["<pad>"]
    everything = [*ours.special_tokens.values(), *ours.encode("a text"), ours.end_of_text]
    assert theirs.decode(everything, skip_special_tokens=True) == "a text"


def test_special_tokens_can_be_meant(both, tmp_path):
    ours, _ = both
    theirs = loaded(ours, tmp_path, split_special_tokens=False)
    assert theirs("a<mask>a")["input_ids"] == [
        *ours.encode("a"),
        ours.special_tokens["<mask>"],
        *ours.encode("a"),
    ]


def test_a_piece_has_the_merge_that_leads_to_it():
    """`aaa` is made of aa and a, since aa comes first and from the left; of a and aa it never is."""
    backend = to_backend(SentencePieceSpec("bpe", 350).build(ODD))
    merges = json.loads(backend.to_str())["model"]["merges"]
    assert ["aa", "a"] in merges or ["aa", "aa"] in merges
    assert ["a", "aa"] not in merges
    assert len({a + b for a, b in merges}) == len(merges)


def test_scores_that_round_differently_are_refused():
    trained = SentencePieceSpec("unigram", 305).build(ODD)
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    proto = ModelProto.FromString(trained.files[MODEL_FILE])
    proto.pieces[-1].score += 0.001
    other = SentencePieceTokenizer(
        {MODEL_FILE: proto.SerializeToString()}, trained.special_tokens, trained.end_of_text
    )
    with pytest.raises(ConfigError, match="no multiples of 1/64"):
        to_backend(other)


def test_a_special_token_of_one_character_is_refused():
    with pytest.raises(ConfigError, match=r"'§'.* one character"):
        to_backend(ByteSpec([*SPECIAL_TOKENS, "§"]).build())
