from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch

from llm.data.collators.base import Batch, Setting
from llm.data.collators.causal import CausalCollator
from llm.data.module import CorpusDataModule
from llm.data.sampling.windows import IGNORED
from llm.errors import ConfigError
from llm.model import ModelConfig


def module(
    corpus, *, world=1, rank=0, context_length=16, batch_size=12, micro_batch_size=3, seed=0
) -> CorpusDataModule:
    collate = CausalCollator(Setting(corpus.tokenizer, seed, ModelConfig(context_length=context_length)))
    streams = (corpus.train, corpus.validation)
    samples = [collate.samples(stream, context_length, seed) for stream in streams]
    sizes = {"batch_size": batch_size, "micro_batch_size": micro_batch_size}
    found = CorpusDataModule(corpus, collate, *samples, **sizes)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    found.trainer = SimpleNamespace(world_size=world, global_rank=rank, strategy=strategy)
    return found


def global_batches(corpus, steps: int, *, world: int, micro: int, start: int = 0) -> Iterator[torch.Tensor]:
    """What all processes together see in each step, by sample."""
    loaders = []
    for rank in range(world):
        part = module(corpus, world=world, rank=rank, micro_batch_size=micro)
        part.consumed = start * part.batch_size
        loaders.append(iter(part.train_dataloader()))
    for _ in range(steps):
        batches = [next(loader) for _ in range(12 // micro // world) for loader in loaders]
        rows = {
            int(id_): row
            for batch in batches
            for id_, row in zip(batch.indices_b, batch.tokens_bt, strict=True)
        }
        yield torch.stack([rows[id_] for id_ in sorted(rows)])


@pytest.mark.parametrize(("world", "micro"), [(1, 12), (1, 4), (2, 3), (3, 2), (4, 1)])
def test_each_step_sees_the_same_samples_however_they_are_shared_out(corpus, world, micro) -> None:
    steps = 3 * module(corpus).train_view.size // 12 // 2
    expected = list(global_batches(corpus, steps, world=1, micro=6))
    assert len(expected[0]) == 12
    for found, wanted in zip(global_batches(corpus, steps, world=world, micro=micro), expected, strict=True):
        assert torch.equal(found, wanted)


def test_a_later_start_goes_on_as_if_nothing_had_happened(corpus) -> None:
    whole = list(global_batches(corpus, 90, world=1, micro=3))
    for start in (1, 50, 89):
        resumed = list(global_batches(corpus, 90 - start, world=2, micro=3, start=start))
        assert all(torch.equal(a, b) for a, b in zip(resumed, whole[start:], strict=True))


def test_batches_are_windows_of_the_stream(corpus) -> None:
    data = module(corpus)
    batch = next(iter(data.train_dataloader()))
    starts = data.train_view.order.starts(batch.indices_b.numpy())
    assert torch.equal(batch.tokens_bt, torch.from_numpy(corpus.train.read(starts, 16)))
    assert torch.equal(batch.targets_bk, torch.from_numpy(corpus.train.read(starts + 1, 16)))
    assert batch.tokens_bt.dtype == torch.int64


def test_the_training_loader_has_no_end_and_no_length(corpus) -> None:
    loader = module(corpus).train_dataloader()
    with pytest.raises(TypeError):
        len(loader)
    assert len(list(islice(loader, 2 * module(corpus).train_view.size // 3))) > 0


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("micro", [1, 2, 4])
@pytest.mark.parametrize("context_length", [7, 16, 10_000])
def test_each_held_out_token_is_a_target_once(corpus, world, micro, context_length) -> None:
    corpus.train.tokens = np.resize(corpus.train.tokens, 20_000)
    scored, counts = [], set()
    for rank in range(world):
        data = module(corpus, world=world, rank=rank, micro_batch_size=micro, context_length=context_length)
        batches = list(data.val_dataloader())
        counts.add(len(batches))
        assert len(data.val_dataloader()) == len(batches)
        assert {batch.tokens_bt.shape for batch in batches} == {(micro, context_length)}
        scored += [
            (int(id_), targets[targets != IGNORED].tolist())
            for batch in batches
            for id_, targets in zip(batch.indices_b, batch.targets_bk, strict=True)
        ]
    assert len(counts) == 1
    in_order = [token for id_, targets in sorted(scored) if id_ >= 0 for token in targets]
    assert in_order == corpus.validation.tokens[1:].tolist()
    assert all(not targets for id_, targets in scored if id_ < 0)


def test_nothing_held_out_is_no_loader(corpus) -> None:
    corpus.validation.tokens = corpus.validation.tokens[:0]
    assert module(corpus).val_dataloader() == []


def test_a_batch_that_can_not_be_shared_out_is_named(corpus) -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size=12.*2 processes = 10"):
        module(corpus, world=2, micro_batch_size=5).train_dataloader()


def test_beside_an_accelerator_batches_are_fetched_ahead(corpus) -> None:
    data = module(corpus)
    assert data.train_dataloader().num_workers == 0
    data.trainer.strategy.root_device = torch.device("cuda")
    loader = data.train_dataloader()
    assert (loader.num_workers, loader.pin_memory, loader.prefetch_factor) == (1, True, 4)


class Watcher(L.LightningModule):
    """Remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained, self.validated = [], 0

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.trained += batch.indices_b.tolist()
        return self.weight * batch.tokens_bt.float().mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated += int((batch.targets_bk != IGNORED).sum())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_lightning_takes_the_batches_as_they_are(corpus, tmp_path) -> None:
    data = module(corpus)
    data.trainer = None
    data.consumed = 5 * data.batch_size
    trainer = L.Trainer(
        max_steps=3,
        accumulate_grad_batches=4,
        use_distributed_sampler=False,
        val_check_interval=8,
        accelerator="cpu",
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    watcher = Watcher()
    trainer.fit(watcher, data)
    assert watcher.trained == list(range(60, 96))
    assert watcher.validated == len(corpus.validation) - 1
