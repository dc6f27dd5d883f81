"""Conversations: checked, kept, packed in rows that don't see each other, and scored where the assistant speaks."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm.data import TokenStream, prepare
from llm.data.collators.base import Setting
from llm.data.collators.conversations import ConversationCollator, Conversing
from llm.data.collators.packed import pack
from llm.data.preparation.encode import join_stretches
from llm.data.sampling.windows import IGNORED
from llm.data.sources import DocstringChats, JsonLines
from llm.errors import DataError
from llm.model import ModelConfig, Transformer, init_weights
from llm.tokenizer import ByteSpec, ChatTemplate
from llm.tokenizer.chat import CHATML

TOKENIZER = ByteSpec().build().with_chat_template(CHATML)
SHAPE = {"d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 48, "vocab_size": TOKENIZER.vocab_size}


class Chatting:
    needs_text = False

    def __init__(self, tokenizer=TOKENIZER):
        self.tokenizer = tokenizer

    def build(self, texts):
        return self.tokenizer

    def fingerprint(self):
        return self.tokenizer.hash


def talk(n):
    turns = [
        ("user", f"What is {n}?"),
        ("assistant", "one " * (n % 7 + 1)),
        ("user", "And?"),
        ("assistant", f"no {n}"),
    ]
    return [{"role": role, "content": text} for role, text in turns[: 2 + 2 * (n % 2)]]


TALKS = [talk(n) for n in range(60)]


def written(folder, rows):
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return Conversing(JsonLines([f"{folder}/a.jsonl"], text="messages", validation_share=0.1))


@pytest.fixture
def corpus(tmp_path):
    return prepare(written(tmp_path, [{"messages": one} for one in TALKS]), Chatting(), tmp_path / "shards")


def collator(length=128, **keys):
    return ConversationCollator(Setting(TOKENIZER, 0, ModelConfig(**SHAPE, context_length=length)), **keys)


def test_every_conversation_comes_back_token_by_token(corpus):
    wanted = {tuple(np.concatenate(ChatTemplate(TOKENIZER).stretches(one)).tolist()) for one in TALKS}
    found = set()
    for stream in (corpus.train, corpus.validation):
        view = collator().samples(stream, 128, 0)
        for number in range(stream.n_documents):
            one = view.conversation(number)
            found.add(tuple(one.ids_t.tolist()))
            said = TOKENIZER.decode(one.ids_t[one.is_written_t].tolist())
            assert said in {"".join(m["content"] for m in talk if m["role"] == "assistant") for talk in TALKS}
    assert found == wanted


@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), min_size=2, max_size=6).filter(
            lambda turns: len(turns) % 2 == 0 and all(turn[0] != 2 for turn in turns)
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(2, 12),
)
def test_ends_of_text_within_a_conversation_are_told_from_those_between_turns(talks, length):
    from types import SimpleNamespace

    from llm.data.collators.conversations import Conversations

    rows = [join_stretches([np.array(turn) for turn in turns], 2) for turns in talks]
    tokens = np.concatenate(rows)

    class Stream(SimpleNamespace):
        def __len__(self):
            return len(self.tokens)

        positions, n_documents, ends = TokenStream.positions, TokenStream.n_documents, TokenStream.ends

    starts = np.cumsum([0, *map(len, rows)])[:-1]
    stream = Stream(tokens=tokens, documents=starts.astype(np.uint64))
    view = Conversations(stream, length, 0, end_of_text=2, too_long="cut")
    for number, turns in enumerate(talks):
        one = view.conversation(number)
        assert one.ids_t.tolist() == [id_ for turn in turns for id_ in turn][: length + 1]
        mask = [at % 2 == 1 for at, turn in enumerate(turns) for _ in turn][: length + 1]
        assert one.is_written_t.tolist() == mask
        assert view.n_written[number] == sum(mask)
    assert view.n_left_out == sum(view.n_written == 0)


@given(st.lists(st.integers(1, 50), max_size=60))
def test_packing_loses_nothing_and_overfills_nothing(lengths):
    sizes = np.array(lengths, np.int64)
    rows = pack(sizes, np.arange(len(sizes)), 50)
    assert sorted(number for row in rows for number in row.tolist()) == list(range(len(sizes)))
    assert all(sizes[row].sum() <= 50 for row in rows)
    halves = [row for row in rows if sizes[row].sum() <= 25]
    assert len(halves) <= 1  # two of them would have been one


def test_packed_rows_score_as_conversations_alone(corpus):
    collate = collator()
    view = collate.samples(corpus.train, 128, 0)
    batch = collate(view.training(np.arange(4)), np.arange(4))
    assert view.size < view.n_conversations
    model = Transformer(ModelConfig(**SHAPE, context_length=128)).eval()
    init_weights(model, 0)
    with torch.no_grad():
        packed = model(batch.tokens_bt, **batch.inputs())
        for row, conversations in enumerate(view.training(np.arange(4))):
            at = 0
            for one in conversations:
                alone = model(torch.from_numpy(one.ids_t[None, :-1]))[0]
                torch.testing.assert_close(packed[row, at : at + len(alone)], alone, rtol=0, atol=2e-6)
                targets = batch.targets_bk[row, at : at + len(alone)].numpy()
                assert (targets == np.where(one.is_written_t, one.ids_t, IGNORED)[1:]).all()
                at += len(alone)
            assert (batch.targets_bk[row, at:] == IGNORED).all()
    assert (batch.targets_bk != IGNORED).sum() == view.n_targets(np.arange(4)).sum()


@pytest.mark.parametrize(("too_long", "kept"), [("cut", 60), ("drop", 30)])
def test_what_is_too_long_is_cut_or_left_out_and_counted(corpus, too_long, kept):
    stream = corpus.train
    lengths = collator().samples(stream, 128, 0).kept_lengths
    length = int(np.median(lengths))
    view = collator(length, too_long=too_long).samples(stream, length, 0)
    n_long = int((lengths > length + 1).sum())
    assert f"{n_long} of {stream.n_documents} conversations are longer" in view.note
    used = sorted(number for row in view.rows for number in row.tolist())
    if too_long == "drop":
        assert used == np.flatnonzero(lengths <= length + 1).tolist()
        assert "left out" in view.note
    else:
        assert used == list(range(stream.n_documents))
    nothing = collator(8, too_long="cut").samples(stream, 8, 0)  # the first question alone is longer
    assert nothing.size == 0
    assert f"{stream.n_documents} have no answer within it" in nothing.note


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "the assistant says nothing"),
        (["hello"], "message 1 is str, no object"),
        ([{"role": "user"}], "message 1 has no content, only role"),
        ([{"content": "x"}], "message 1 has no role, only content"),
        (
            [{"role": "robot", "content": "x"}],
            "message 1 has the role 'robot'; known are system, user, assistant",
        ),
        ([{"role": "user", "content": " \n"}], "the content of message 1 is empty"),
        ([{"role": "user", "content": None}], "the content of message 1 is NoneType, not text"),
        (
            [{"role": "assistant", "content": "x"}],
            "message 1 is of the assistant, where one of the system or user has to begin",
        ),
        (
            [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}],
            "message 2 is of the user, where one of the assistant has to follow that of the user",
        ),
        ([{"role": "user", "content": "x"}], "the assistant says nothing"),
        ([{"role": "user", "content": "\ud800"}, {"role": "assistant", "content": "x"}], "lone surrogate"),
    ],
)
def test_wrong_conversations_are_told_with_their_line(tmp_path, messages, message):
    source = written(tmp_path, [{"messages": TALKS[0]}, {"messages": messages}, {"messages": TALKS[1]}])
    with pytest.raises(DataError, match=r"a\.jsonl:2: .*" + message.replace("(", r"\(")):
        prepare(source, Chatting(), tmp_path / "shards")


def test_texts_are_no_conversations(tmp_path):
    with pytest.raises(DataError, match="task=chat needs conversations"):
        prepare(written(tmp_path, [{"messages": "a text"}] * 3), Chatting(), tmp_path / "shards")


def test_pairs_are_questions_and_answers(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"q": f"q{n}", "a": f"a{n}"}) for n in range(50)))
    source = Conversing(JsonLines([f"{tmp_path}/a.jsonl"], text="q", label="a", validation_share=0))
    corpus = prepare(source, Chatting(), tmp_path / "shards")
    one = collator().samples(corpus.train, 128, 0).conversation(3)
    assert TOKENIZER.decode(one.ids_t.tolist()) == "user\nq3\nassistant\na3"
    assert TOKENIZER.decode(one.ids_t[one.is_written_t].tolist()) == "a3"


def test_few_conversations_are_held_out_whole(tmp_path):
    corpus = prepare(
        written(tmp_path, [{"messages": one} for one in TALKS[:12]]), Chatting(), tmp_path / "shards"
    )
    views = [collator().samples(stream, 128, 0) for stream in (corpus.train, corpus.validation)]
    assert [view.n_conversations for view in views] in ([11, 1], [10, 2])


def test_bytes_of_a_target(corpus):
    view = collator().samples(corpus.train, 128, 0)
    ones = [view.conversation(number) for number in range(view.n_conversations)]
    n_bytes = sum(len(TOKENIZER.decode_bytes(one.ids_t[one.is_written_t].tolist())) for one in ones)
    assert view.target_bytes(TOKENIZER) == pytest.approx(n_bytes / view.size)


def test_chats_of_the_standard_library(tmp_path):
    from llm.data.documents import BETWEEN

    text = 'def f(a, *, b=1):\n    """Add.\n\n    More."""\n    return a + b\n'
    (made,) = DocstringChats.records("a.py", text)
    sides = [side.decode() for side in made.split(BETWEEN)]
    assert sides[2::2] == [
        "What does `def f(a, *, b=1)` do?",
        "Add.",
        "What arguments does `f` take?",
        "a, b",
    ]
    assert DocstringChats().corpus_name == "docstring_chats"
