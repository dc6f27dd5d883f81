import copy
import math

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from llm.data.collators.base import Setting
from llm.data.collators.causal import CausalCollator
from llm.model import ModelConfig, Transformer, init_weights
from llm.objective.cross_entropy import CrossEntropy
from llm.tokenizer import ByteSpec
from llm.train.module import LanguageModule


def small_model(**changes):
    shape = {"d_model": 32, "n_layers": 2, "n_heads": 2, "context_length": 16, "vocab_size": 64} | changes
    model = Transformer(ModelConfig(**shape))
    init_weights(model, 0)
    return model


def some_batch(n=4, time=16, vocab_size=64):
    windows = np.random.default_rng(0).integers(0, vocab_size, (n, time + 1))
    return CausalCollator(Setting(ByteSpec().build(), 0, ModelConfig(context_length=time)))(
        windows, np.arange(n)
    )


def module_of(model, compile=False):
    return LanguageModule(
        model,
        CrossEntropy(),
        lambda named: torch.optim.SGD([p for _, p in named]),
        lambda step: 1.0,
        lambda net: init_weights(net, 0),
        compile,
    )


def test_the_step_is_the_mean_loss_of_its_targets():
    model, batch = small_model(), some_batch()
    loss = module_of(model).training_step(batch, 0)
    logits = model(batch.tokens_bt)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets_bk.flatten())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss.item() == pytest.approx(math.log(64), abs=0.3)


def test_ignored_targets_count_for_nothing():
    batch = some_batch()
    targets = batch.targets_bk.clone()
    targets[1:] = -100
    loss = CrossEntropy()(small_model(), batch._replace(targets_bk=targets))
    assert loss.n_targets.item() == 16
    alone = CrossEntropy()(
        small_model(), batch._replace(tokens_bt=batch.tokens_bt[:1], targets_bk=batch.targets_bk[:1])
    )
    assert loss.mean.item() == pytest.approx(alone.mean.item(), rel=1e-6)


def test_clipping_scales_to_the_norm_and_reports_the_norm_before(monkeypatch):
    model, batch = small_model(), some_batch()
    module = module_of(model)
    module.training_step(batch, 0).backward()
    before = torch.cat([p.grad.flatten() for p in model.parameters()])
    module.configure_gradient_clipping(torch.optim.SGD(model.parameters()), 0.01)
    after = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert module.grad_norm == pytest.approx(before.norm().item(), rel=1e-5)
    assert after.norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.slow
def test_a_compiled_step_equals_the_plain_one():
    plain, compiled = small_model(), small_model()
    batch = some_batch()
    first = module_of(plain).training_step(batch, 0)
    second = module_of(compiled, compile=True).training_step(batch, 0)
    first.backward()
    second.backward()
    assert second.item() == pytest.approx(first.item(), rel=2e-6)
    for (name, ours), (_, theirs) in zip(plain.named_parameters(), compiled.named_parameters(), strict=True):
        scale = ours.grad.abs().max().item()
        assert (ours.grad - theirs.grad).abs().max().item() <= 1e-5 * max(scale, 1e-3), name


def test_gradients_go_with_the_update_and_add_up_until_then():
    """Nothing of a step's gradients is there beside the next one's activations; a step's own micro-batches add up."""
    model, batch = small_model(), some_batch()
    held = []

    class Watched(LanguageModule):
        def training_step(self, batch, batch_idx):
            held.append([p.grad is not None for p in model.parameters()])
            return super().training_step(batch, batch_idx)

    module = module_of(model)
    module.__class__ = Watched
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=2,
        accumulate_grad_batches=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = copy.deepcopy(model.state_dict())
    trainer.fit(module, DataLoader([batch] * 4, batch_size=None))
    assert [(any(some), all(some)) for some in held] == [(False, False), (True, True)] * 2
    assert all(p.grad is None for p in model.parameters())
    alone = small_model()
    alone.load_state_dict(start)
    optimizer = torch.optim.SGD(alone.parameters())
    for _ in range(2):
        CrossEntropy()(alone, batch).mean.backward()
        optimizer.step()
        optimizer.zero_grad()
    for (name, ours), (_, theirs) in zip(model.named_parameters(), alone.named_parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7, msg=name)
