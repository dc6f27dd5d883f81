"""Pairs of texts: each once an epoch, padded, cut to the context, and averaged over a step's targets."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llm.data import prepare
from llm.data.collators.base import Setting
from llm.data.collators.pairs import LENGTH_STEP, PairCollator, Pairs
from llm.data.module import CorpusDataModule
from llm.data.sampling.windows import IGNORED
from llm.data.sources import Docstrings, JsonLines
from llm.data.sources.docstrings import summarised_functions
from llm.errors import ConfigError, DataError
from llm.model import ModelConfig, Transformer, init_weights
from llm.model.mask import PADDING
from llm.objective.cross_entropy import CrossEntropy
from llm.tokenizer import ByteSpec, start_token

TOKENIZER = ByteSpec().build()
END = TOKENIZER.end_of_text
PAIRS = [(f"What is {n}?\nSay it.", "one " * (n % 7 + 1)) for n in range(50)]


@pytest.fixture
def source(tmp_path):
    lines = [json.dumps({"q": source, "a": target}) for source, target in [*PAIRS, ("", "x"), ("x", "")]]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    return JsonLines([f"{tmp_path}/pairs.jsonl"], text="q", label="a", validation_share=0.2)


@pytest.fixture
def corpus(source, tmp_path):
    return prepare(source, ByteSpec(), tmp_path / "shards")


def texts(pair):
    return tuple(TOKENIZER.decode(side.tolist()) for side in pair)


def all_pairs(stream):
    view = Pairs(stream, 256, 0, END)
    return [texts(view.pair(number)) for number in range(view.size)]


def test_every_pair_is_there_once_and_none_is_cut(corpus):
    train, held_out = all_pairs(corpus.train), all_pairs(corpus.validation)
    assert sorted(train + held_out) == sorted(PAIRS)
    assert held_out
    assert corpus.train.n_bytes + corpus.validation.n_bytes == sum(len(a) + len(b) for a, b in PAIRS)


def test_an_epoch_holds_each_pair_once_in_another_order(corpus):
    view = Pairs(corpus.train, 256, 0, END)
    first, second = (
        [texts(pair) for pair in view.training(np.arange(epoch * view.size, (epoch + 1) * view.size))]
        for epoch in (0, 1)
    )
    assert sorted(first) == sorted(second) == sorted(all_pairs(corpus.train))
    assert first != second


def test_a_batch_is_padded_and_each_side_ends():
    sides = [([5, 6, 7], [8]), ([9], [10, 11])]
    pairs = [tuple(np.array([*side, END]) for side in pair) for pair in sides]
    batch = PairCollator(Setting(TOKENIZER, 0, ModelConfig(context_length=64)))(pairs, np.array([3, 4]))
    assert batch.source_bs.shape == batch.targets_bk.shape == (2, LENGTH_STEP)
    assert batch.source_bs[0, :4].tolist() == [5, 6, 7, END]
    assert batch.source_documents_bs[0].tolist() == [0] * 4 + [PADDING] * 28
    assert batch.targets_bk[1, :4].tolist() == [10, 11, END, IGNORED]
    assert batch.tokens_bt[1, :3].tolist() == [start_token(TOKENIZER), 10, 11]
    assert batch.tokens_bt.min() >= 0


def test_a_side_longer_than_the_context_is_cut_and_counted(corpus):
    view = Pairs(corpus.train, 12, 0, END)
    whole = Pairs(corpus.train, 256, 0, END)
    assert whole.n_cut == 0
    assert view.n_cut == view.size  # every source is longer than 12
    for number in range(view.size):
        cut, full = view.pair(number).source_s, whole.pair(number).source_s
        assert cut.tolist() == [*full[:11].tolist(), END]


@pytest.mark.parametrize("micro", [1, 2, 4, 8])
def test_the_mean_of_a_step_is_over_all_its_targets_however_it_is_shared_out(corpus, micro):
    model = Transformer(
        ModelConfig(
            architecture="encoder_decoder",
            d_model=16,
            n_layers=1,
            n_heads=2,
            context_length=64,
            vocab_size=TOKENIZER.vocab_size,
        )
    )
    init_weights(model, 0)
    collate = PairCollator(Setting(TOKENIZER, 0, ModelConfig(context_length=64)))
    samples = [collate.samples(stream, 64, 0) for stream in (corpus.train, corpus.validation)]
    data = CorpusDataModule(corpus, collate, *samples, batch_size=8, micro_batch_size=micro)
    data.trainer = SimpleNamespace(
        world_size=1, global_rank=0, strategy=SimpleNamespace(root_device=torch.device("cpu"))
    )
    batches = iter(data.train_dataloader())
    for step in range(3):
        parts = [CrossEntropy()(model, next(batches)) for _ in range(8 // micro)]
        whole = CrossEntropy()(
            model, collate(data.train_view.training(np.arange(8) + 8 * step), np.arange(8))
        )
        assert sum(part.n_targets for part in parts) == whole.n_targets
        mean = torch.stack([part.mean for part in parts]).mean()
        torch.testing.assert_close(mean, whole.mean, rtol=1e-6, atol=0)


def test_a_corpus_of_texts_is_no_corpus_of_pairs(tmp_path):
    from llm.data.sources import TextFiles

    (tmp_path / "a.txt").write_text("some text\n" * 100)
    texts = prepare(TextFiles([f"{tmp_path}/a.txt"]), ByteSpec(), tmp_path / "shards")
    with pytest.raises(DataError, match="no pairs"):
        Pairs(texts.train, 64, 0, END)


def test_a_missing_side_is_named(tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"source": "a", "targett": "b"}\n')
    with pytest.raises(ConfigError, match="there is no field 'target'"):
        prepare(
            JsonLines([f"{tmp_path}/pairs.jsonl"], text="source", label="target"),
            ByteSpec(),
            tmp_path / "shards",
        )


def test_a_function_is_paired_with_what_its_docstring_says_first():
    text = '''
class C:
    @property
    def f(self, x):
        """Say
        it.

        More."""
        return x

    def g(self):
        """Nothing else."""

def plain(): return 1
'''
    ((source, summary),) = summarised_functions(text)
    assert summary == "Say it."
    assert source == "def f(self, x):\n    return x"
    assert list(summarised_functions("def broken(:")) == []


def test_the_standard_library_gives_pairs_and_the_same_files_are_held_out(tmp_path):
    corpus = prepare(Docstrings(), ByteSpec(), tmp_path / "shards")
    held_out = all_pairs(corpus.validation)
    assert corpus.train.n_documents > 2000
    assert 100 < len(held_out) < corpus.train.n_documents / 5
    assert all(
        source.startswith(("def ", "async def ")) and '"""' not in target for source, target in held_out
    )
