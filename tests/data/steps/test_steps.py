import json
import pickle
import random
import re
from collections import Counter
from functools import partial

import ftfy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.editing import edited
from llm.data.sources.stdlib import stdlib_folder
from llm.data.steps import (
    C4,
    Contamination,
    DuplicateLines,
    FineWeb,
    FixText,
    GopherQuality,
    GopherRepetition,
    Language,
    Length,
    LowerCase,
    NearDuplicates,
    NoSpecialCharacters,
    PlainPunctuation,
)
from llm.data.steps.base import words_of
from llm.data.steps.duplicates import Groups
from llm.data.steps.hashing import runs, word_hashes
from llm.data.steps.repeats import find_repeats
from llm.data.steps.rules import _covered, _top, hash_of
from llm.errors import ConfigError

PROSE = (
    "The history of the town begins with a small harbour that fishermen of the coast built in the early years. "
    "Merchants have come to it ever since, and with them came the trade in wool, salt and timber from the north.\n"
    "In later centuries a wall was raised to keep the sea away from the lower streets, and most of it still stands. "
    "Visitors walk along its top on summer evenings, when the light is soft and the boats are coming home.\n"
)
SPANISH = (
    "La historia del pueblo comienza con un pequeño puerto que los pescadores de la costa construyeron hace siglos. "
    * 3
)


@pytest.mark.parametrize(
    ("step", "text", "after"),
    [
        (FixText(), "schÃ¶n &amp; good", "schön & good"),
        (FixText(), "“as” it is", "“as” it is"),
        (LowerCase(), "ÀB c", "àb c"),
        (PlainPunctuation(), "“It’s” – well…", "\"It's\" - well..."),
        (NoSpecialCharacters(), "a\u200bb\x00c\ud7ff\n\te\u0301", "abc\n\té"),
        (NoSpecialCharacters("NFKC"), "ﬁ", "fi"),
        (C4(), "One two three four five.\nToo few words.\nNo punctuation stands at the end\nWe use JavaScript for all of this.\n"
               "Read the privacy policy of this page.\nA second line of enough words[1].\nA third line has them as well!",
         "One two three four five.\nA second line of enough words.\nA third line has them as well!"),
    ],
)  # fmt: skip
def test_what_becomes_of_a_text(step, text, after) -> None:
    assert step(text).text == after


WORDS = PROSE.split()
DROPPED = [
    (GopherQuality(), "The cat.", "too few words"),
    (GopherQuality(min_words=10, max_words=10), PROSE, "too many words"),
    (GopherQuality(), "a of " * 60, "mean length of words"),
    (GopherQuality(), PROSE + " # " * 30, "symbols"),
    (GopherQuality(), PROSE.replace("\n", " ").replace(". ", ".\n- ").replace("The", "- The", 1), "lines that are bullets"),
    (GopherQuality(), PROSE.replace(".", "...\n"), "lines that end with an ellipsis"),
    (GopherQuality(), PROSE + " 12345 " * 40, "words without letters"),
    (GopherQuality(), SPANISH, "no stop words"),
    (GopherRepetition(), "\n".join(["the same line"] * 5 + WORDS[:8]), "repeated lines"),
    (GopherRepetition(), "\n\n".join([PROSE[:100], PROSE[:100]]), "repeated lines"),
    (GopherRepetition(), " ".join(f"see also {n} see also" for n in range(20)), "the most frequent 2 words"),
    (GopherRepetition(), " ".join(WORDS[:20] + WORDS[40:] + WORDS[:20]), "repeated runs of 5 words"),
    (C4(), PROSE + "{}", "curly bracket"),
    (C4(), PROSE + "Lorem Ipsum", "lorem ipsum"),
    (C4(), "One sentence of five words.", "too few sentences"),
    (FineWeb(), "\n".join(["A line of more than thirty characters without an end"] * 9 + ["One."]), "lines without punctuation"),
    (FineWeb(), PROSE + PROSE, "repeated lines"),
    (FineWeb(), "\n".join(f"Short line {n}." for n in range(9)), "short lines"),
    (Length(min_words=5), "four words are here", "too short"),
    (Length(max_characters=5), "too long", "too long"),
    (Language(["en"]), SPANISH, "es"),
    (Language(["en"], min_probability=1.1), PROSE, "not told"),
]  # fmt: skip


@pytest.mark.parametrize(("step", "text", "reason"), DROPPED, ids=lambda value: str(value)[:40])
def test_what_is_left_out_and_why(step, text, reason) -> None:
    assert step(text) == (None, reason)


STEPS = [
    FixText(),
    GopherQuality(min_words=20),
    GopherRepetition(),
    C4(),
    FineWeb(),
    Length(min_words=5),
    Language(["en"]),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_prose_passes(step) -> None:
    assert step(PROSE).text.strip() == PROSE.strip()
    assert pickle.loads(pickle.dumps(step)) == step
    assert json.loads(json.dumps(step.settings()))["step"] == type(step).__name__


def test_language_is_a_remark_where_none_is_asked_for() -> None:
    assert Language()(SPANISH) == (SPANISH, "es")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_stops_a_step(text) -> None:
    for step in [*STEPS, LowerCase(), PlainPunctuation(), NoSpecialCharacters()]:
        assert step(text).text is None or isinstance(step(text).text, str)
    assert NearDuplicates().marks(text).shape == (256,)


# Against the plain definitions.

MENDED = [
    "schÃ¶n",
    "&amp;",
    "<b>",
    "a",
    "\n",
    "\r\n",
    "\x1b[31m",
    "é",
    "e\u0301",
    "â€™",
    "\u2028",
    "œ",
    "Â ",
    " ",
]


@given(st.lists(st.sampled_from(MENDED), max_size=12).map("".join))
def test_text_is_mended_as_ftfy_does(text) -> None:
    options = {"uncurl_quotes": False, "fix_character_width": False, "fix_latin_ligatures": False}
    assert FixText()(text).text == ftfy.fix_text(text, explain=False, **options)


words = st.lists(st.sampled_from(["a", "bb", "c", "dd"]), min_size=5, max_size=40)


@given(words, st.integers(2, 4))
def test_the_most_frequent_run(some, length) -> None:
    counts = Counter(tuple(some[at : at + length]) for at in range(len(some) - length + 1))
    most = max(counts.values())
    expected = max(most * len("".join(run)) for run, count in counts.items() if count == most)
    hashes = np.array([hash_of(word) for word in some], np.uint64)
    assert _top(hashes, np.array([*map(len, some)]), length) == (expected if most > 1 else 0)


@given(words, st.integers(2, 5))
def test_characters_in_repeated_runs(some, length) -> None:
    seen, covered = set(), set()
    for at in range(len(some) - length + 1):
        run = tuple(some[at : at + length])
        covered |= set(range(at, at + length)) if run in seen else set()
        seen.add(run)
    hashes = np.array([hash_of(word) for word in some], np.uint64)
    assert _covered(hashes, np.array([*map(len, some)]), length) == sum(len(some[at]) for at in covered)


@given(st.text(st.characters(codec="utf-8", max_codepoint=0x2FFF)))
def test_words_are_those_of_a_regular_expression(text) -> None:
    import llm.data.steps.hashing as hashing

    lower = "".join(" " if hashing.UNSPACED.match(c) else c for c in text.lower())
    found = "".join(c if c.isalnum() else " " for c in lower).split()
    alone = sum(1 for c in text.lower() if hashing.UNSPACED.match(c))
    hashes = word_hashes(text)
    assert len(hashes) == len(found) + alone
    if not alone:
        assert len(set(hashes.tolist())) == len(set(found))
        assert hashes.tolist() == [word_hashes(word)[0] for word in found]


def test_chinese_is_compared_by_character() -> None:
    assert len(word_hashes("我们学习, deep 学习")) == 7


def test_runs_depend_on_the_order() -> None:
    one, other = (runs(word_hashes(text), 2) for text in ("a b c", "c b a"))
    assert len(one) == 2
    assert not set(one.tolist()) & set(other.tolist())


LONG = st.lists(
    st.sampled_from(["ΑΣ", "Σ'", "the", "of.", "学习", "a-b", "{", "•", "...", "\n"]), min_size=1, max_size=60
)


@given(LONG.map(" ".join), st.integers(1, 20))
def test_what_is_held_at_once_changes_nothing(text, limit) -> None:
    import llm.data.steps.base as base
    import llm.data.steps.hashing as hashing

    settings = {"max_symbols": 9.0, "min_words": 1, "min_mean_length": 0.0}
    steps = [Length(max_words=30), GopherRepetition(), GopherQuality(**settings)]

    def all_of_it() -> tuple:
        words_of.cache_clear()
        return word_hashes(text).tolist(), words_of(text).lengths.tolist(), [step(text) for step in steps]

    whole = all_of_it()
    with pytest.MonkeyPatch.context() as patch:
        for module in (base, hashing):
            patch.setattr(module, "CHARACTERS_AT_ONCE", limit)
        assert all_of_it() == whole
        assert sum(map(len, words_of(text).words())) == len(text.split())


def library_texts() -> list[str]:
    files = sorted(stdlib_folder().glob("*.py"))
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    return [text[at : at + 3000] for text in texts for at in range(0, len(text) - 3000, 12_000)]


@pytest.mark.parametrize(("characters", "low", "high"), [(None, 0.01, 0.2), (500, 0.2, 0.2)])
def test_near_duplicates_are_found_and_nothing_else(characters, low, high) -> None:
    texts, draw, step = [text[:characters] for text in library_texts()], random.Random(0), NearDuplicates()
    vocabulary = re.findall(r"\S+\s*", "".join(texts))
    originals = np.stack([step.marks(text) for text in texts])
    # Parts of the library that are like one another would not be known copies.
    kept = np.setdiff1d(np.arange(len(texts)), step.repeats([originals]).numbers)
    copies = [edited(texts[number], draw.uniform(low, high), draw, vocabulary) for number in kept]
    found = step.repeats([originals[kept], np.stack([step.marks(text) for text in copies])])
    right = sum(number == of + len(kept) for number, of in zip(found.numbers, found.of, strict=True))
    assert len(kept) > 380
    assert right / len(kept) >= 0.95
    assert right / len(found.numbers) >= 0.99


def test_repeats_do_not_depend_on_the_pieces() -> None:
    texts = [f"{PROSE} {'word ' * n}" for n in range(9)] + [SPANISH] + [PROSE.upper()]
    step = NearDuplicates()
    marks = np.stack([step.marks(text) for text in texts])
    whole = step.repeats([marks])
    parts = step.repeats([marks[:4], marks[4:4], marks[4:]])
    assert whole.numbers.tolist() == parts.numbers.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 10]
    assert set(whole.of.tolist()) == {0}


def test_bounded_memory_finds_the_same(monkeypatch) -> None:
    import llm.data.steps.duplicates as module

    step = NearDuplicates()
    marks = np.stack(
        [step.marks(f"{PROSE[:300]} {n // 2}" * (1 + n % 3)) for n in range(30)] + [step.marks("")] * 2
    )
    whole = step.repeats([marks])
    monkeypatch.setattr(module, "KEYS_AT_ONCE", 5)
    assert [part.tolist() for part in step.repeats([marks])] == [part.tolist() for part in whole]


LINES = st.lists(
    st.lists(st.sampled_from(["a b", " a b ", "a", "b c", "", "c"]), min_size=1, max_size=4), max_size=8
)


@given(LINES, st.integers(0, 8), st.sets(st.integers(0, 7)), st.integers(1, 2))
def test_lines_repeat_what_stands_earlier_in_any_document_that_is_kept(documents, cut, left_out, min_words):
    step, seen, expected = DuplicateLines(min_words), set(), []
    for number, lines in enumerate(documents):
        for line in map(str.strip, lines):
            counts = number not in left_out and len(line.split()) >= min_words
            expected.append(counts and line in seen)
            seen |= {line} if counts else set()
    marks = [step.marks("\n".join(lines)) for lines in documents]
    pieces = [np.concatenate([np.zeros(0, np.uint64), *some]) for some in (marks[:cut], marks[cut:])]
    found = np.concatenate(list(step.repeated_lines(pieces, np.array(sorted(left_out), np.int64))))
    assert np.flatnonzero(expected).tolist() == sorted(found.tolist())


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 60))
def test_repeats_in_bounded_memory_are_those_of_all_at_once(hashes, at_once):
    pieces = [partial(np.array, some, np.uint64) for some in (hashes[:20], hashes[20:])]
    whole = [number for number, value in enumerate(hashes) if value and value in hashes[:number]]
    assert find_repeats(pieces).tolist() == find_repeats(pieces, at_once).tolist() == whole


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40))
def test_groups_are_connected_components(pairs) -> None:
    groups, parent = Groups(20), list(range(20))
    pairs = np.array(pairs, np.int64).reshape(-1, 2)
    groups.join(pairs[:, 0], pairs[:, 1])
    for _ in range(20):
        for one, other in pairs:
            parent[one] = parent[other] = min(parent[one], parent[other])
    found = groups.repeats()
    assert dict(zip(found.numbers.tolist(), found.of.tolist(), strict=True)) == {
        number: leader for number, leader in enumerate(parent) if number != leader
    }


@pytest.mark.parametrize("settings", [{"ngram": 0}, {"bands": 0}, {"threshold": 0.0}, {"threshold": 1.5}])
def test_senseless_settings_are_refused(settings) -> None:
    with pytest.raises(ConfigError, match="NearDuplicates"):
        NearDuplicates(**settings)


def test_contamination(write) -> None:
    sentence = "Merchants have come to it ever since, and with them came the trade in wool"
    folder = write({
        "a.jsonl": json.dumps({"q": "short", "answers": [{"text": sentence}]}) + "\n",
        "b.txt": "Something else entirely that is never found anywhere in any of the other documents at all",
    })  # fmt: skip
    told = Contamination([f"{folder}/*"])
    assert told(PROSE) == (PROSE, "overlaps with a.jsonl")
    assert told(PROSE[:150]) == (PROSE[:150], "")
    assert (
        told("MERCHANTS have come - to it ever since and with them came the trade").label
        == "overlaps with a.jsonl"
    )
    assert Contamination([f"{folder}/*"], action="drop")(PROSE) == (None, "overlaps with a.jsonl")
    before = told.settings()
    (folder / "a.jsonl").write_text("{}\n")
    assert Contamination([f"{folder}/*"]).settings() != before
    with pytest.raises(ConfigError, match="no file matches"):
        Contamination([f"{folder}/none"])(PROSE)
