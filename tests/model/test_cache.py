"""The cache: its room, its growth, and that it can be emptied."""

import pytest
import torch

from llm.errors import ConfigError
from llm.model import KVCache, ModelConfig, Transformer, init_weights

CONFIG = ModelConfig(
    d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, context_length=12, vocab_size=19, d_ff=20
)
TOKENS_BT = torch.randint(0, 19, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    model = Transformer(CONFIG).eval()
    init_weights(model, seed=0)
    return model


@torch.no_grad()
def test_it_grows_by_what_it_saw_and_forgets_on_reset(model):
    cache = KVCache(CONFIG, 2)
    first = model(TOKENS_BT[:, :5], cache=cache)
    assert cache.length == 5
    model(TOKENS_BT[:, 5:9], cache=cache)
    assert cache.length == 9
    cache.reset()
    assert cache.length == 0
    assert torch.equal(model(TOKENS_BT[:, :5], cache=cache), first)


@torch.no_grad()
def test_too_many_tokens_are_refused_before_anything_is_written(model):
    cache = KVCache(CONFIG, 2, max_length=6)
    model(TOKENS_BT[:, :5], cache=cache)
    with pytest.raises(ConfigError, match="7 tokens do not fit the cache of 6"):
        model(TOKENS_BT[:, 5:7], cache=cache)
    assert cache.length == 5


def test_it_is_no_longer_than_the_context():
    with pytest.raises(ConfigError, match="13 positions is longer than the model's context_length 12"):
        KVCache(CONFIG, 1, max_length=13)
