"""Two processes that share a model, each architecture, beside one that has it whole."""

import gc
import os

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy

from llm.errors import ConfigError
from llm.generation import Sampling
from llm.generation.engine import generate
from llm.model import ModelConfig, Transformer, init_weights
from llm.train.optimizers import adamw
from llm.train.sharding import clip_by_global_norm, gathered, is_sharded, release, shard, whole
from llm.train.tensor_parallel import check_divides, split_tensors

SIZES = {"d_model": 16, "n_heads": 2, "n_layers": 2, "d_ff": 24, "context_length": 8, "vocab_size": 13}
SHAPES = {
    "decoder": {"tie_embeddings": True, "position": "rotary"},
    "encoder": {"residual": "post", "norm": "layer", "head_bias": True, "position": "learned"},
    "encoder_decoder": {"position": "relative", "tie_embeddings": False},
}
WORLD = 2


def build(architecture, device):
    with torch.device(device):
        return Transformer(ModelConfig(architecture=architecture, **SIZES, **SHAPES[architecture]))


def batch(architecture):
    tokens_bt = torch.randint(0, 13, (4, 8), generator=torch.Generator().manual_seed(1))
    source = {"source_bs": tokens_bt.flip(1)} if architecture == "encoder_decoder" else {}
    return tokens_bt, source


def train(model, architecture, rows):
    """Three steps on some rows of a batch, two micro-batches each; the norms that were clipped."""
    tokens_bt, source = batch(architecture)
    optimizer = adamw(model.named_parameters(), lr=1e-2)
    norms = []
    for _ in range(3):
        for part in rows:
            logits_btv = model(tokens_bt[part], **{name: value[part] for name, value in source.items()})
            loss = torch.nn.functional.cross_entropy(logits_btv.flatten(0, 1), tokens_bt[part].flatten())
            (loss / len(rows)).backward()
        norms.append(clip_by_global_norm(model.parameters(), 0.1))
        optimizer.step()
        optimizer.zero_grad()
    return norms


def join(rank, folder, world_size=WORLD):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )


def leave():
    # A sharded model that outlives its process group aborts its rank when Python ends, one time in five.
    gc.collect()
    dist.destroy_process_group()


def sharded(architecture, policy=None):
    model = build(architecture, "meta")
    shard(model, init_device_mesh("cpu", (WORLD,)), policy or MixedPrecisionPolicy())
    model.to_empty(device="cpu")
    init_weights(model, seed=5)
    assert is_sharded(model)
    return model


def split(architecture, data_size, tensor_size):
    """A model whose matrices are split within groups, and all of it over the groups."""
    mesh = init_device_mesh("cpu", (data_size, tensor_size), mesh_dim_names=("data", "tensor"))
    model = build(architecture, "meta")
    split_tensors(model, mesh["tensor"])
    shard(model, mesh["data"], MixedPrecisionPolicy())
    model.to_empty(device="cpu")
    init_weights(model, seed=5)
    return model


def train_split(rank, folder, architecture, data_size, tensor_size):
    join(rank, folder, data_size * tensor_size)
    group = rank // tensor_size
    model = split(architecture, data_size, tensor_size)
    save(model, train(model, architecture, [[i] for i in range(group, 4, data_size)]), folder, rank)
    del model
    leave()


def train_sharded(rank, folder, architecture):
    join(rank, folder)
    model = sharded(architecture)
    save(model, train(model, architecture, [[rank], [2 + rank]]), folder, rank)
    del model
    leave()


def save(model, norms, folder, rank):
    weights = {name: whole(p.detach()) for name, p in model.named_parameters()}
    if rank == 0:
        torch.save((norms, weights), f"{folder}/result.pt")


@pytest.mark.distributed
@pytest.mark.parametrize("architecture", SHAPES)
def test_two_processes_train_the_model_of_one(spawn, tmp_path, architecture):
    spawn(train_sharded, (str(tmp_path), architecture), WORLD)
    assert_trained_as_one(architecture, tmp_path)


@pytest.mark.distributed
@pytest.mark.parametrize("architecture", SHAPES)
def test_two_that_share_each_product_train_the_model_of_one(spawn, tmp_path, architecture):
    spawn(train_split, (str(tmp_path), architecture, 1, 2), 2)
    assert_trained_as_one(architecture, tmp_path)


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize("architecture", SHAPES)
def test_two_pairs_that_share_each_product_train_the_model_of_one(spawn, tmp_path, architecture):
    spawn(train_split, (str(tmp_path), architecture, 2, 2), 4)
    assert_trained_as_one(architecture, tmp_path)


def assert_trained_as_one(architecture, tmp_path):
    model = build(architecture, "cpu")
    init_weights(model, seed=5)
    norms = train(model, architecture, [[0], [1], [2], [3]])
    theirs, weights = torch.load(tmp_path / "result.pt", weights_only=True)
    assert min(norms) > 0.1
    assert theirs == pytest.approx(norms, rel=1e-5)
    for name, parameter in model.named_parameters():
        assert (weights[name] - parameter).abs().max() < 1e-5, name


def write_sharded(rank, folder):
    join(rank, folder)
    for name, policy in (
        ("whole", None),
        ("half", MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)),
    ):
        model = sharded("decoder", policy)
        train(model, "decoder", [[rank]])
        release(model)
        with gathered(model):
            steps = generate(
                model, torch.tensor([[1, 2]]), sampling=Sampling(temperature=0.0), max_new_tokens=12
            )
            tokens = [token_b.item() for token_b in steps]
        train(model, "decoder", [[rank]])
        if rank == 0:
            torch.save(tokens, f"{folder}/{name}.pt")
        del model
    leave()


@pytest.mark.distributed
def test_a_sharded_model_writes_between_steps(spawn, tmp_path):
    model = build("decoder", "cpu")
    init_weights(model, seed=5)
    train(model, "decoder", [[0], [1]])
    steps = generate(model, torch.tensor([[1, 2]]), sampling=Sampling(temperature=0.0), max_new_tokens=12)
    tokens = [token_b.item() for token_b in steps]
    spawn(write_sharded, (str(tmp_path),), WORLD)
    assert torch.load(tmp_path / "whole.pt", weights_only=True) == tokens
    assert len(torch.load(tmp_path / "half.pt", weights_only=True)) == 12


@pytest.mark.parametrize(("size", "key"), [(3, "n_heads"), (4, "n_heads"), (2, "n_kv_heads")])
def test_what_processes_cannot_share_evenly_is_refused(size, key):
    config = ModelConfig(**{**SIZES, "n_kv_heads": 1 if key == "n_kv_heads" else 2})
    with pytest.raises(ConfigError, match=rf"doesn't divide model\.{key}="):
        check_divides(config, size)
