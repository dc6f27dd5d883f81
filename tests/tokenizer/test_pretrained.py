"""Pretrained tokenizers: special tokens stay out of text, the end is found, bytes follow the decoder."""

import json

import pytest
import tokenizers as hf
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, CanineTokenizer

from llm.errors import ConfigError, DataError
from llm.tokenizer import PretrainedSpec, load_tokenizer

BYTES = {f"<0x{byte:02X}>": -1.0 * byte for byte in range(256)}


def metaspace():
    """Llama's kind: BPE over U+2581 with byte fallback, a start token added behind one's back."""
    pieces = ["<unk>", "<s>", "</s>", *BYTES, "\u2581", "h", "i", "\u2581h", "hi", "\u2581hi"]
    merges = [("\u2581", "h"), ("h", "i"), ("\u2581h", "i")]
    vocab = {piece: id_ for id_, piece in enumerate(pieces)}
    backend = hf.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


def wordpiece():
    vocab = {piece: id_ for id_, piece in enumerate(["[UNK]", "[CLS]", "[SEP]", "play", "##ing", "."])}
    backend = hf.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    return backend


def write(folder, backend, **config):
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


def test_special_spellings_are_text_and_nothing_is_added(tmp_path):
    tokenizer = PretrainedSpec(write(tmp_path, metaspace())).build()
    text = "</s> hi<s>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not {0, 1, 2} & set(tokenizer.encode(text))
    assert tokenizer.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2}


def test_metaspace_and_byte_fallback_decode_exactly(tmp_path):
    tokenizer = PretrainedSpec(write(tmp_path, metaspace())).build()
    assert len(tokenizer.encode(" hi")) == 1
    for text in ("hi é 😀\n\t hi  ", " hi", "<0x0A>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode_bytes([3 + 0xC3]) == b"\xc3"


def test_added_tokens_that_are_not_special_come_from_text(tmp_path):
    backend = metaspace()
    backend.add_tokens(["<tool>"])
    tokenizer = PretrainedSpec(write(tmp_path, backend)).build()
    ids = tokenizer.encode("hi<tool>hi")
    assert len(ids) == 3
    assert tokenizer.decode(ids) == "hi<tool>hi"
    assert "<tool>" not in tokenizer.special_tokens


def test_wordpiece_ids_stand_for_words_and_their_ends(tmp_path):
    tokenizer = PretrainedSpec(write(tmp_path, wordpiece())).build()
    assert tokenizer.encode("playing.") == [3, 4, 5]
    assert tokenizer.decode([3, 4, 5]) == " playing ."
    assert tokenizer.end_of_text == 2


@pytest.mark.parametrize("eos", ["<s>", {"content": "<s>", "lstrip": False}])
def test_the_end_is_what_the_folder_names(tmp_path, eos):
    assert PretrainedSpec(write(tmp_path, metaspace(), eos_token=eos)).build().end_of_text == 1


def test_the_end_is_else_a_usual_one_or_asked_for(tmp_path):
    folder = write(tmp_path, metaspace())
    assert PretrainedSpec(folder).build().end_of_text == 2
    assert PretrainedSpec(folder, end_of_text="hi").build().end_of_text == metaspace().token_to_id("hi")
    with pytest.raises(ConfigError, match=r"no token <end>.*tokenizer\.end_of_text"):
        PretrainedSpec(folder, end_of_text="<end>").build()


def test_an_end_that_is_an_ordinary_piece_no_longer_comes_from_text(tmp_path):
    tokenizer = PretrainedSpec(write(tmp_path, metaspace()), end_of_text="hi").build()
    ids = tokenizer.encode("hihi")
    assert tokenizer.end_of_text not in ids
    assert tokenizer.decode(ids) == "hihi"


def test_a_unigram_model_does_not_find_special_tokens_in_text(tmp_path):
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *BYTES.items(), ("\u2581", -2.0), *((c, -3.0) for c in "</s>hi")]
    backend = hf.Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.decoder = metaspace().decoder
    backend.add_special_tokens(["</s>"])
    tokenizer = PretrainedSpec(write(tmp_path, backend)).build()
    assert tokenizer.backend.encode("hi</s>").ids.count(1) == 1
    assert tokenizer.end_of_text == 1
    assert 1 not in tokenizer.encode("hi</s> </s>")
    assert tokenizer.decode(tokenizer.encode("hi</s> </s>")) == "hi</s> </s>"


def test_what_a_wordpiece_model_does_not_know_is_unknown(tmp_path):
    tokenizer = PretrainedSpec(write(tmp_path, wordpiece())).build()
    assert tokenizer.encode("play é.") == [3, 0, 5]


def test_ids_equal_those_of_transformers(tmp_path):
    backend = metaspace()
    folder = write(tmp_path, backend, tokenizer_class="PreTrainedTokenizerFast")
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in ("hi there", " hi\n", "é"):
        expected = theirs(text, add_special_tokens=False)["input_ids"]
        assert PretrainedSpec(folder).build().encode(text) == expected


def test_truncation_and_padding_of_the_file_are_off(tmp_path):
    backend = metaspace()
    backend.enable_truncation(2)
    backend.enable_padding(length=8)
    tokenizer = PretrainedSpec(write(tmp_path, backend)).build()
    assert len(tokenizer.encode(" hi" * 5)) == 5
    assert [len(ids) for ids in tokenizer.encode_batch([" hi" * 5, " hi"])] == [5, 1]


def test_the_fingerprint_is_that_of_the_contents(tmp_path):
    spec = PretrainedSpec(write(tmp_path, metaspace()))
    assert spec.fingerprint() == spec.build().hash
    assert not spec.needs_text
    spec.build().save(tmp_path / "copy")
    assert load_tokenizer(tmp_path / "copy").hash == spec.fingerprint()
    assert PretrainedSpec(write(tmp_path, wordpiece())).fingerprint() != spec.fingerprint()


def test_a_path_to_the_file_itself_works(tmp_path):
    folder = write(tmp_path, metaspace())
    assert PretrainedSpec(f"{folder}/tokenizer.json").fingerprint() == PretrainedSpec(folder).fingerprint()


def test_what_does_not_load_is_refused_with_its_place(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="missing"):
        PretrainedSpec(str(tmp_path / "missing")).build()
    write(tmp_path, metaspace())
    (tmp_path / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(DataError, match=str(tmp_path)):
        PretrainedSpec(str(tmp_path)).build()


def test_a_tokenizer_that_is_code_alone_is_refused(tmp_path):
    """As the OPUS translation models' is."""
    CanineTokenizer().save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError, match=r"a CanineTokenizer is code of transformers alone, and has no tokenizer\.json"
    ):
        PretrainedSpec(str(tmp_path)).build()
