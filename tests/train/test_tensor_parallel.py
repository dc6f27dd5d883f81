"""Processes that share each matrix product of a model with labels or with adapters, beside one that has it whole."""

import gc
import os
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy

from llm.adapter import Lora, initial_weights
from llm.errors import ConfigError
from llm.model import ModelConfig, Transformer, init_weights
from llm.model.init import generator_for
from llm.train.checkpoint import load_weights
from llm.train.optimizers import adamw
from llm.train.sharding import clip_by_global_norm, local, shard, whole
from llm.train.tensor_parallel import check_divides, split_tensors

SIZES = {"d_model": 16, "n_heads": 2, "n_layers": 2, "d_ff": 24, "context_length": 8, "vocab_size": 13}
BIASES = {"attention_bias": True, "mlp_bias": True, "norm": "layer"}
BERT = {"architecture": "encoder", "residual": "post", "position": "learned", **BIASES}
T5 = {"architecture": "encoder_decoder", "position": "relative"}
CASES = {
    "labels": ({**BERT, "pooler": True, "labels": ("a", "b", "c")}, None),
    "numbers": ({"labels": ("a",), "labelled": "number", "number_mean": 6.0, "number_std": 3.0}, None),
    "lora": ({}, Lora(rank=2, rslora=True)),
    "some": ({**BERT, "labels": ("a", "b")}, Lora(rank=2, targets=["value", "up", "output"])),
    "dora": (BERT, Lora(rank=2, dora=True)),
    "int8": (T5, Lora(rank=2, quantize="int8")),
    "int8 dora": ({**BIASES}, Lora(rank=2, dora=True, quantize="int8")),
    # A process has 12 columns of the 24 that `down` has, and blocks of 64 values end within them.
    "nf4": (BIASES, Lora(rank=2, quantize="nf4", targets=["query", "down"])),
    "nf4 dora": (T5, Lora(rank=2, dora=True, quantize="nf4")),
}
# What runs each time; the others are made of the same parts.
QUICK = ("labels", "dora", "int8 dora", "nf4")
LEARNT = 0.05  # the spread of what is in B where a run goes on


def made(shape, lora, device):
    with torch.device(device):
        net = Transformer(ModelConfig(**SIZES, **shape))
        if lora is not None:
            lora.attach(net)
    return net


def begin(net, shape):
    """Give `net`, however it is laid out, weights that are the same in any layout."""
    base = made(shape, None, "cpu")
    init_weights(base, seed=5)
    tensors = initial_weights(net, dict(base.named_parameters()), seed=5)
    for name, tensor in tensors.items():
        if name.endswith("lora_b"):
            tensor.normal_(0, LEARNT, generator=generator_for(name, 5))
    load_weights(net, {name: tensor.detach() for name, tensor in tensors.items()}, Path("test"))


def train(net, rows):
    """Three steps on some rows of a batch, two micro-batches each; the norms that were clipped."""
    tokens_bt = torch.randint(0, 13, (4, 7), generator=torch.Generator().manual_seed(1))
    optimizer = adamw(net.named_parameters(), lr=1e-2)
    norms = []
    for _ in range(3):
        for part in rows:
            source = {} if net.encoder is None else {"source_bs": tokens_bt[part].flip(1)}
            loss = loss_of(net(tokens_bt[part], **source), tokens_bt[part])
            (loss / len(rows)).backward()
        norms.append(clip_by_global_norm(net.parameters(), 0.1))
        optimizer.step()
        optimizer.zero_grad()
    return norms


def loss_of(logits_btl, tokens_bt):
    if logits_btl.shape[-1] == 1:
        return F.mse_loss(logits_btl[..., 0], tokens_bt.float())
    return F.cross_entropy(logits_btl.flatten(0, 1), tokens_bt.flatten() % logits_btl.shape[-1])


def split(shape, lora, data_size, tensor_size):
    mesh = init_device_mesh("cpu", (data_size, tensor_size), mesh_dim_names=("data", "tensor"))
    net = made(shape, lora, "meta")
    split_tensors(net, mesh["tensor"])
    shard(net, mesh["data"], MixedPrecisionPolicy())
    net.to_empty(device="cpu")
    begin(net, shape)
    return net


def train_all(rank, folder, names, data_size, tensor_size):
    join(rank, folder, data_size * tensor_size)
    group = rank // tensor_size
    for name in names:
        shape, lora = CASES[name]
        net = split(shape, lora, data_size, tensor_size)
        norms = train(net, [[i] for i in range(group, 4, data_size)])
        weights = {name: whole(p.detach()) for name, p in net.named_parameters()}
        if rank == 0:
            torch.save((norms, weights), f"{folder}/{name}.pt")
        del net
        gc.collect()
    dist.destroy_process_group()


def join(rank, folder, world_size):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world_size)


@pytest.fixture(scope="module")
def trained(spawn, tmp_path_factory):
    """The folder of what processes made of some cases, at once since what DTensor learns of one serves the next."""

    @cache
    def train(names, data_size, tensor_size):
        folder = tmp_path_factory.mktemp("split")
        spawn(train_all, (str(folder), names, data_size, tensor_size), data_size * tensor_size)
        return folder

    return train


def together(names, sizes, quick=False):
    """A test for each of the cases that the same processes train."""
    marks = [] if quick else [pytest.mark.slow]
    return [pytest.param(name, (tuple(names), *sizes), marks=marks, id=f"{name}-{sizes}") for name in names]


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("name", "those"),
    [
        *together(QUICK, (1, 2), quick=True),
        *together([name for name in CASES if name not in QUICK], (1, 2)),
        *together(CASES, (2, 2)),
    ],
)
def test_processes_that_share_each_product_train_the_model_of_one(trained, name, those):
    shape, lora = CASES[name]
    net = made(shape, lora, "cpu")
    begin(net, shape)
    first = {name: p.detach().clone() for name, p in net.named_parameters()}
    norms = train(net, [[0], [1], [2], [3]])
    theirs, weights = torch.load(trained(*those) / f"{name}.pt", weights_only=True)
    assert theirs == pytest.approx(norms, rel=1e-5)
    for name, parameter in net.named_parameters():
        own = weights[name]
        if parameter.requires_grad:
            assert (own - parameter).abs().max() < 1e-5, name
            assert not torch.equal(own, first[name]) or name.startswith("pooler"), name
        else:
            assert torch.equal(own, first[name]), name


def train_with_dropout(rank, folder):
    join(rank, folder, 2)
    torch.manual_seed(rank)
    shape = {**BERT, "labels": ("a", "b"), "dropout": 0.2}
    net = split(shape, Lora(rank=2, dropout=0.2), 1, 2)
    train(net, [[0, 1], [2, 3]])
    for name, parameter in net.named_parameters():
        if parameter.placements[-1].is_replicate():
            held = [torch.empty_like(local(parameter)) for _ in range(2)]
            dist.all_gather(held, local(parameter.detach()))
            assert torch.equal(*held), name
    del net, parameter
    gc.collect()
    dist.destroy_process_group()


@pytest.mark.distributed
def test_what_both_hold_stays_the_same_where_each_drops_its_own(spawn, tmp_path):
    spawn(train_with_dropout, (str(tmp_path),), 2)


def test_parts_that_cut_through_blocks_are_refused():
    config = ModelConfig(**{**SIZES, "d_ff": 20})
    check_divides(config, 2, "int8")
    with pytest.raises(
        ConfigError, match=r"nf4: the part .* along model\.d_ff is \(16, 10\).* take adapter.quantize=int8"
    ):
        check_divides(config, 2, "nf4")
