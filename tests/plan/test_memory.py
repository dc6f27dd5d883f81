"""The estimate of memory against what autograd, optimizers and a process really hold."""

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llm.model import ModelConfig, Transformer, init_weights
from llm.plan import state_bytes, training_memory
from llm.plan.memory import kept_bytes, parameter_dtype
from llm.train.optimizers import Muon, adamw

ROOT = Path(__file__).resolve().parents[2]
SMALL = ModelConfig(d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, context_length=64, vocab_size=300)
ADAMW = functools.partial(adamw, lr=1e-3)
MUON = functools.partial(Muon, lr=1e-3)


def really_kept(config, batch_size, context):
    net = Transformer(config)
    init_weights(net, 0)
    tokens = torch.zeros(batch_size, config.context_length, dtype=torch.long)
    return kept_bytes(net, tokens, tokens.clone(), context)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_activations_are_those_that_autograd_keeps(precision, batch_size, architecture):
    shape = dataclasses.replace(SMALL, architecture=architecture)
    said = training_memory(shape, ADAMW, batch_size, precision, "cpu").activations
    context = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed")
    assert said == really_kept(shape, batch_size, context)


@pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=["adamw", "muon"])
def test_the_state_is_what_an_optimizer_holds_after_a_step(optimizer):
    net = Transformer(SMALL)
    init_weights(net, 0)
    real = optimizer(net.named_parameters())
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    real.step()
    held = sum(value.nbytes for state in real.state.values() for value in state.values())
    assert state_bytes(Transformer(SMALL), optimizer) == held


def test_the_parts_follow_the_formula():
    memory = training_memory(SMALL, ADAMW, 2, "32-true", "cpu")
    parameters = sum(p.numel() for p in Transformer(SMALL).parameters())
    assert memory.weights == memory.gradients == 4 * parameters
    assert memory.optimizer == pytest.approx(8 * parameters, rel=0.01)
    assert memory.logits == 12 * 2 * 64 * 300
    assert memory.total == sum(
        (memory.weights, memory.gradients, memory.optimizer, memory.activations, memory.logits)
    )


@pytest.mark.parametrize(
    ("precision", "width"),
    [("bf16-true", 2), ("16-true", 2), ("bf16-mixed", 4), ("32-true", 4), ("64-true", 8)],
)
def test_weights_are_as_wide_as_the_precision_keeps_them(precision, width):
    assert parameter_dtype(precision).itemsize == width


def test_estimating_leaves_the_default_dtype_alone():
    training_memory(SMALL, ADAMW, 1, "bf16-true", "cpu")
    assert torch.get_default_dtype() == torch.float32


MEASURE = """
import functools, threading, time, torch
from pathlib import Path
from llm.data.collate import Batch
from llm.model import ModelConfig, Transformer, init_weights
from llm.objective.cross_entropy import CrossEntropy
from llm.plan import training_memory
from llm.train.optimizers import adamw

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

config = ModelConfig(n_kv_heads=2, head_dim=64, d_ff=704, vocab_size=4096, qk_norm=True)
optimizer = functools.partial(adamw, lr=1e-3)
said = training_memory(config, optimizer, 4, "32-true", "cpu").total
torch.mm(torch.randn(64, 64), torch.randn(64, 64))
before, peak, done = resident(), 0, False

def watch():
    global peak
    while not done:
        peak = max(peak, resident())
        time.sleep(0.001)

thread = threading.Thread(target=watch)
thread.start()
net = Transformer(config)
init_weights(net, 0)
stepper = optimizer(net.named_parameters())
tokens = torch.randint(0, 4096, (4, 256))
for _ in range(3):
    CrossEntropy()(net, Batch(tokens, tokens, torch.arange(4))).mean.backward()
    stepper.step()
    stepper.zero_grad()
done = True
thread.join()
print(said / (peak - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_a_process_grows_by_about_that_much():
    # Freed memory goes back at once, so that what is resident is what is allocated.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True, check=True
    )
    assert 0.85 < float(done.stdout) < 1.2
