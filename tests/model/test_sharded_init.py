"""Initial values under FSDP2: the same weights at any world size, from a model born on meta."""

import gc
import os

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from llm.model import ModelConfig, Transformer, init_weights

CONFIG = ModelConfig(
    d_model=16, n_layers=2, n_heads=2, d_ff=24, context_length=8, vocab_size=11, qk_norm=True
)
TOKENS_BT = torch.arange(8)[None] % 11


def initialise_and_compare(rank, folder, expected, logits_btv):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    compare(expected, logits_btv)
    # A sharded model that outlives its process group aborts its rank when Python ends, one time in five.
    gc.collect()
    dist.destroy_process_group()


def compare(expected, logits_btv):
    with torch.device("meta"):
        model = Transformer(CONFIG)
    for block in model.stack.blocks:
        fully_shard(block)
    fully_shard(model)
    model.to_empty(device="cpu")
    init_weights(model, seed=5)
    for name, parameter in model.named_parameters():
        assert parameter.to_local().shape != parameter.shape
        assert torch.equal(parameter.full_tensor(), expected[name]), name
    assert torch.allclose(model(TOKENS_BT), logits_btv, atol=1e-6)


@pytest.mark.distributed
def test_sharded_weights_are_those_of_one_process(spawn, tmp_path):
    model = Transformer(CONFIG)
    init_weights(model, seed=5)
    expected = {name: parameter.detach() for name, parameter in model.named_parameters()}
    spawn(initialise_and_compare, (str(tmp_path), expected, model(TOKENS_BT).detach()), 2)
