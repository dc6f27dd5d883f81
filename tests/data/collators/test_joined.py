"""Pairs as one sequence: the target scored token by token, sources cut by themselves alone, rows that don't see each other."""

import json

import numpy as np
import pytest
import torch

from llm.data import prepare
from llm.data.collators.base import Setting, measure_samples
from llm.data.collators.joined import JoinedPairCollator, pair_collator
from llm.data.collators.pairs import PairCollator, Pairs
from llm.data.mixture import MixedStream, SourceShare, samples_of
from llm.data.sampling.windows import IGNORED
from llm.data.sources import JsonLines
from llm.errors import ConfigError, DataError
from llm.model import ModelConfig, Transformer, init_weights
from llm.model.mask import PADDING
from llm.objective.cross_entropy import CrossEntropy
from llm.tokenizer import ByteSpec, ChatTemplate
from llm.tokenizer.chat import PAIR, with_end

TOKENIZER = ByteSpec().build()
END = TOKENIZER.end_of_text
PAIRS = [(f"What is {n}?", "one " * (n % 7 + 1)) for n in range(40)] + [("long " * 12, "far " * 14)]


@pytest.fixture
def stream(tmp_path):
    lines = [json.dumps({"q": source, "a": target}) for source, target in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    source = JsonLines([f"{tmp_path}/pairs.jsonl"], text="q", label="a", validation_share=0)
    return prepare(source, ByteSpec(), tmp_path / "shards").train


def setting(length=128, **changes):
    return Setting(
        TOKENIZER, 0, ModelConfig(vocab_size=TOKENIZER.vocab_size, context_length=length, **changes)
    )


def test_a_pair_is_the_templates_tokens_and_its_target_alone_is_scored(stream):
    template = ChatTemplate(TOKENIZER.with_chat_template(with_end(PAIR, TOKENIZER)))
    view = JoinedPairCollator(setting()).samples(stream, 128, 0)
    found = {}
    for number in range(view.n_conversations):
        ids_t, is_written_t = view.conversation(number)
        found[TOKENIZER.decode(ids_t[~is_written_t].tolist())] = ids_t, is_written_t
    assert found.keys() == {source for source, _ in PAIRS}
    for source, target in PAIRS:
        given, written = template.stretches(
            [{"role": "user", "content": source}, {"role": "assistant", "content": target}]
        )
        ids_t, is_written_t = found[source]
        assert ids_t[~is_written_t].tolist() == given.tolist() == [*TOKENIZER.encode(source), END]
        assert ids_t[is_written_t].tolist() == written.tolist() == [*TOKENIZER.encode(target), END]
        assert template.prompt([{"role": "user", "content": source}]) == given.tolist()


def test_every_target_of_a_pass_is_scored_once_behind_what_it_follows(stream):
    collate = JoinedPairCollator(setting())
    view = collate.samples(stream, 128, 0)
    batch = collate(view.in_order(np.arange(view.size)), np.arange(view.size))
    scored = batch.targets_bk[batch.targets_bk != IGNORED].tolist()
    assert sorted(scored) == sorted(id_ for _, target in PAIRS for id_ in [*TOKENIZER.encode(target), END])
    assert view.size < len(PAIRS) / 2
    # What a scored token follows is the one before it in its document, the source's end of text at first.
    row = batch.targets_bk[0] != IGNORED
    first = int(row.nonzero()[0])
    assert batch.tokens_bt[0, first] == END
    assert batch.documents_bt[0, first] == 0
    assert (batch.documents_bt == PADDING).any()
    assert view.n_targets(np.arange(view.size)).sum() == len(scored)
    assert collate.mean_tokens(view).targets == pytest.approx(len(scored) / view.size)


def test_pairs_of_a_row_do_not_see_each_other(stream):
    config = setting(128, d_model=32, n_layers=2, n_heads=2, d_ff=48).model_config
    model = Transformer(config)
    init_weights(model, 0)
    collate = JoinedPairCollator(setting())
    view = collate.samples(stream, 128, 0)
    row = view.in_order(np.arange(view.size))[-1]
    assert len(row) > 2
    together = CrossEntropy()(model, collate([row], np.zeros(1, np.int64)))
    apart = CrossEntropy()(model, collate([[one] for one in row], np.zeros(len(row), np.int64)))
    torch.testing.assert_close(together.total, apart.total, rtol=2e-6, atol=0)
    assert (
        together.n_targets.item() == apart.n_targets.item() == sum(int(one.is_written_t.sum()) for one in row)
    )


@pytest.mark.parametrize("length", [16, 24, 40])
def test_a_source_is_cut_by_itself_and_a_target_to_what_is_left(stream, length):
    view = JoinedPairCollator(setting(length)).samples(stream, length, 0)
    whole = Pairs(stream, len(stream) + 1, 0, END)
    for number in range(whole.size):
        source_s, target_k = whole.pair(number)
        ids_t, is_written_t = view.conversation(number)
        n_given = min(len(source_s), length * 3 // 4)
        assert ids_t[~is_written_t].tolist() == [*source_s[: n_given - 1], END]
        assert ids_t[is_written_t].tolist() == target_k[: length + 1 - n_given].tolist()
        assert view.exchange(number).given_t.tolist() == ids_t[~is_written_t].tolist()
        assert view.exchange(number).written_t.tolist() == target_k.tolist()
    cut = sum(
        len(source) + 1 > length * 3 // 4
        or len(target) + 1 > length + 1 - min(len(source) + 1, length * 3 // 4)
        for source, target in PAIRS
    )
    assert view.note.startswith(f"{cut} of {len(PAIRS)} pairs")
    assert not JoinedPairCollator(setting(256)).samples(stream, 256, 0).note


@pytest.mark.parametrize("share", [0, 1, 1.5, -1])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(ConfigError, match="source_share="):
        pair_collator(setting(), source_share=share)


def test_the_model_decides_how_pairs_are_read():
    assert type(pair_collator(setting())) is JoinedPairCollator
    assert type(pair_collator(setting(architecture="encoder_decoder"))) is PairCollator


def test_a_pair_is_no_chat_of_several_turns():
    template = ChatTemplate(TOKENIZER.with_chat_template(with_end(PAIR, TOKENIZER)))
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]
    with pytest.raises(DataError, match="writes the target of one text"):
        template.prompt(turns)
    with pytest.raises(DataError, match="writes the target of one text"):
        template.prompt([{"role": "system", "content": "a"}])


def test_sources_of_pairs_are_mixed(stream):
    collate = JoinedPairCollator(setting())
    mixed = MixedStream({"a": stream, "b": stream}, {"a": SourceShare(3.0), "b": SourceShare(1.0)})
    view, alone = samples_of(collate, mixed, 128, 0), collate.samples(stream, 128, 0)
    assert measure_samples(collate, view) == measure_samples(collate, alone)
    numbers = np.arange(8)
    batch = collate(view.training(numbers), numbers)
    assert (batch.targets_bk != IGNORED).sum() == view.n_targets(numbers).sum()
    assert view.n_in_order == 2 * alone.n_in_order


def test_bytes_of_scored_tokens_are_weighed_by_what_each_source_gives(tmp_path):
    streams = {}
    for name, target in {"few": "a", "many": "héé " * 9}.items():
        lines = [json.dumps({"q": f"{name} {n}", "a": target}) for n in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        source = JsonLines([f"{tmp_path}/{name}.jsonl"], text="q", label="a", validation_share=0)
        streams[name] = prepare(source, ByteSpec(), tmp_path / "shards").train
    collate = JoinedPairCollator(setting())
    shares = {"few": SourceShare(3.0), "many": SourceShare(1.0)}
    view = samples_of(collate, MixedStream(streams, shares), 128, 0)
    targets = [one.ids_t[one.is_written_t] for row in view.training(np.arange(4000)) for one in row]
    ids = np.concatenate(targets)
    n_bytes = len(TOKENIZER.decode_bytes(ids.tolist()))
    assert view.target_bytes(TOKENIZER) == pytest.approx(n_bytes / 4000, rel=0.01)
    scored = measure_samples(collate, view).mean.targets
    assert view.target_bytes(TOKENIZER) / scored == pytest.approx(n_bytes / len(ids), rel=0.01)
