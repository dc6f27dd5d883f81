"""Tagged sentences: read as they stand, scored a word once, their entities as seqeval counts them."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from llm.data import prepare
from llm.data.collators.base import Setting
from llm.data.collators.tags import TagCollator, TaggedSentences
from llm.data.collators.words import NOTHING, spans
from llm.data.documents.bio import entities, is_bio, tagged
from llm.data.documents.verbatim import as_ids, from_ids
from llm.data.sampling.windows import IGNORED
from llm.data.sources import Conll, JsonLines
from llm.errors import ConfigError, DataError
from llm.model import ModelConfig
from llm.tokenizer import ByteSpec

SPEC = ByteSpec()
TOKENIZER = SPEC.build()
END = TOKENIZER.end_of_text
TAGS = ("O", "B-person", "I-person", "B-place", "I-place")
SENTENCES = (
    "EU\tNNP\tB-org\nrejects\tVBZ\tO\n\n-DOCSTART-\tX\tO\n\nPeter\tNNP\tB-per\r\nBlack ß\tNNP\tI-per\n"
)


def conll(folder, content=SENTENCES, **keys):
    path = folder / "a.conll"
    path.write_bytes(content.encode())
    return prepare(Conll(str(path), validation_share=0.0, **keys), SPEC, folder / "shards")


def read(corpus, length=64, **keys):
    return TaggedSentences(corpus.train, length, 0, END, **keys)


def text(words):
    return TOKENIZER.decode([id_ for word in words for id_ in word.tolist()])


@pytest.mark.parametrize(("column", "tags"), [(-1, ["B-org", "O"]), (1, ["NNP", "VBZ"])])
def test_sentences_are_read_with_the_columns_that_are_asked_for(tmp_path, column, tags):
    view = read(conll(tmp_path, label=column))
    windows = view.in_order(np.arange(view.size))
    assert [text(window.words) for window in windows] == ["EU rejects", "Peter Black ß"]
    assert view.tags(0) == tags
    assert view.shown(1, TOKENIZER) == "Peter Black ß"


def test_lists_are_sentences(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"tokens": ["EU", "rejects"], "tags": ["B-org", "O"]}\n')
    source = JsonLines(str(tmp_path / "a.jsonl"), "tokens", "tags", validation_share=0.0)
    view = read(prepare(source, SPEC, tmp_path / "shards"))
    assert (view.shown(0, TOKENIZER), view.tags(0)) == ("EU rejects", ["B-org", "O"])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('{"tokens": ["a", "b"], "tags": ["O"]}', r"a\.jsonl:2: the sentence has 2 words and 1 tags"),
        (
            '{"tokens": ["a", " "], "tags": ["O", "O"]}',
            r"a\.jsonl:2: a word or a tag of the sentence is empty",
        ),
        ('{"tokens": ["a"], "tags": [3]}', r"a\.jsonl:2: the field 'tags' .* must be a list of texts"),
    ],
)
def test_lists_that_are_no_sentence_are_told_or_counted(tmp_path, record, message):
    (tmp_path / "a.jsonl").write_text(f'{{"tokens": ["a"], "tags": ["O"]}}\n{record}\n')
    keys = {"text": "tokens", "label": "tags", "validation_share": 0.0}
    with pytest.raises(DataError, match=message):
        prepare(JsonLines(str(tmp_path / "a.jsonl"), **keys), SPEC, tmp_path / "shards")
    source = JsonLines(str(tmp_path / "a.jsonl"), on_bad_file="skip", **keys)
    assert prepare(source, SPEC, tmp_path / "shards").report["skipped"] == {"bad": 1}


def test_an_empty_sentence_is_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"tokens": ["a"], "tags": ["O"]}\n{"tokens": [], "tags": []}\n')
    source = JsonLines(str(tmp_path / "a.jsonl"), "tokens", "tags", validation_share=0.0)
    assert prepare(source, SPEC, tmp_path / "shards").report["skipped"] == {"empty": 1}


def test_a_line_of_other_columns_is_told_or_counted(tmp_path):
    torn = SENTENCES.replace("rejects\tVBZ\tO", "rejects\tO")
    with pytest.raises(
        DataError, match=r"the sentence of line 1: line 2 has 2 columns, and the file's first line 3"
    ):
        conll(tmp_path, torn)
    report = conll(tmp_path, torn, on_bad_file="skip").report
    assert report["skipped"] == {"bad": 1}
    assert report["documents"] == 1


def test_a_column_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"a\.conll:1: there are 3 columns, and data\.text=0 and data\.label=3"
    ):
        conll(tmp_path, label=3)


def test_a_file_without_blank_lines_is_refused(tmp_path):
    with pytest.raises(DataError, match="no blank line ends the sentence"):
        conll(tmp_path, "a O\n" * 20_002)


def test_a_report_shows_the_words_alone(tmp_path):
    assert "EU rejects" in conll(tmp_path).report["samples"]


@given(st.binary(), st.integers(0, 300))
def test_what_is_verbatim_stays_and_holds_no_end_of_text(data, end):
    ids = as_ids(data, end, 301)
    assert from_ids(ids, end) == data
    assert end not in ids


def test_a_vocabulary_of_fewer_ids_than_bytes_is_refused():
    with pytest.raises(DataError, match="more than 256"):
        as_ids(b"a", 0, 256)


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=60),
    st.integers(1, 20),
    st.integers(1, 30),
)
def test_windows_fit_and_score_each_word_once(lengths, room, stride):
    found = spans(np.array(lengths), room, stride)
    kept = np.minimum(lengths, room)
    assert [word for one in found for word in range(one.begin, one.stop)] == list(range(len(lengths)))
    for one in found:
        assert one.first <= one.begin <= one.stop <= one.end
        assert kept[one.first : one.end].sum() <= room


def test_a_text_that_fits_is_one_window():
    assert spans(np.array([2, 3]), 5, 1) == [(0, 2, 0, 2)]


def collator(architecture, **keys):
    config = ModelConfig(architecture=architecture, context_length=16, labels=TAGS, labelled="words")
    return TagCollator(Setting(TOKENIZER, 0, config), **keys)


@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
def test_a_word_is_scored_where_it_is_known(tmp_path, architecture):
    corpus = conll(tmp_path, "Jo B-person\nis O\n\nah O\n")
    collate = collator(architecture)
    view = collate.samples(corpus.train, 16, 0)
    batch = collate(view.in_order(np.array([0, 1, -1])), np.arange(3))
    assert batch.tokens_bt[0, :7].tolist() == [END, *TOKENIZER.encode("Jo is"), END]
    assert batch.positions_bk[0, :2].tolist() == ([1, 3] if architecture == "encoder" else [2, 5])
    assert batch.targets_bk[0, :3].tolist() == [1, 0, IGNORED]
    assert batch.targets_bk[1, :2].tolist() == [0, IGNORED]
    assert (batch.targets_bk[2] == IGNORED).all()


def test_each_word_of_a_long_sentence_is_a_target_once(tmp_path):
    words = "".join(f"w{n} {'B-person' if n % 3 else 'O'}\n" for n in range(30))
    collate = collator("encoder", stride=5)
    view = collate.samples(conll(tmp_path, words).train, 16, 0)
    batch = collate(view.in_order(np.arange(view.size)), np.arange(view.size))
    found = batch.targets_bk[batch.targets_bk != IGNORED].tolist()
    assert found == [int(bool(n % 3)) for n in range(30)]
    assert view.n_targets(np.arange(view.size)).sum() == 30
    assert view.note == "1 of 1 texts are longer than model.context_length=16 and are read in windows."


def test_a_window_of_nothing_has_no_target():
    assert (collator("encoder")([NOTHING], np.array([-1])).targets_bk == IGNORED).all()


def test_a_tag_that_was_never_seen_is_named(tmp_path):
    collate = collator("encoder")
    view = collate.samples(conll(tmp_path).train, 16, 0)
    with pytest.raises(DataError, match="the label 'B-org', which the model never saw"):
        collate(view.in_order(np.array([0])), np.arange(1))


def test_training_tags_bring_both_sides_of_their_kinds(tmp_path):
    config = ModelConfig(architecture="encoder", pooler=True)
    headed = TagCollator.shaped(config, conll(tmp_path).train, TOKENIZER)
    assert headed.labels == ("B-org", "B-per", "I-org", "I-per", "O")
    assert (headed.labelled, headed.pooler) == ("words", False)
    speech = TagCollator.shaped(config, conll(tmp_path, label=1).train, TOKENIZER)
    assert speech.labels == ("NNP", "VBZ")
    assert not is_bio(speech.labels)


def test_entities_are_those_of_seqeval():
    choose = random.Random(0)
    for _ in range(1000):
        tags = choose.choices(TAGS, k=choose.randint(1, 30))
        theirs = [(kind, first, last + 1) for kind, first, last in get_entities(tags)]
        assert [tuple(one) for one in entities(tags)] == theirs


def test_words_and_tags_that_do_not_match_are_no_document():
    with pytest.raises(DataError, match="2 words and 1 tags"):
        tagged(["a", "b"], ["O"])
