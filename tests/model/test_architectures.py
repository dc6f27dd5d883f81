"""Encoders and encoder-decoders: padding and other documents change nothing, windows hide what is far."""

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from llm.errors import ConfigError
from llm.model import KVCache, ModelConfig, Transformer, init_weights
from llm.model.mask import PADDING
from llm.model.position import RelativePosition

SIZES = {"d_model": 16, "n_layers": 3, "n_heads": 4, "context_length": 24, "vocab_size": 19, "d_ff": 20}
ENCODERS = {
    "bert": {
        "residual": "post",
        "position": "learned",
        "norm": "layer",
        "n_segments": 2,
        "embedding_norm": True,
    },
    "modern": {
        "attention_window": 5,
        "global_attention_every": 2,
        "local_rope_theta": 100.0,
        "embedding_norm": True,
    },
    "relative": {
        "position": "relative",
        "relative_buckets": 8,
        "relative_distance": 12,
        "attention_scale": 1.0,
    },
    "grouped": {"n_kv_heads": 2, "qk_norm": True, "head": "transformed", "head_bias": True},
}
ENCODER_DECODERS = {
    "t5": {"position": "relative", "attention_scale": 1.0, "scale_logits": True, "activation": "geglu_tanh"},
    "vaswani": {"residual": "post", "position": "sinusoidal", "norm": "layer", "scale_embeddings": True},
    "rotary": {"n_encoder_layers": 1, "n_kv_heads": 1, "tie_embeddings": False},
}


def build(architecture, **changes):
    model = Transformer(ModelConfig(architecture=architecture, init_std=0.3, **(SIZES | changes)))
    init_weights(model, seed=0)
    return model.double().eval()


def tolerance(parts):
    """For the same tokens at other positions: rotary angles are kept in float32."""
    return 5e-6 if parts.get("position", "rotary") == "rotary" else 1e-12


def tokens(rows=2, length=24, seed=0):
    return torch.randint(0, 19, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("parts", ENCODERS.values(), ids=ENCODERS)
class TestEncoders:
    def test_every_weight_learns_and_both_sides_are_seen(self, parts):
        model = build("encoder", **parts)
        logits_btv = model(tokens())
        logits_btv.logsumexp(-1).sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        changed_bt = tokens()
        changed_bt[:, 12] = (changed_bt[:, 12] + 1) % 19
        moved_t = (model(changed_bt) - logits_btv).abs().amax(dim=(0, 2))
        assert moved_t[11] > 1e-6
        assert moved_t[13] > 1e-6

    @torch.no_grad()
    def test_padding_changes_nothing(self, parts):
        model = build("encoder", **parts)
        tokens_bt, length = tokens(1), 15
        documents_bt = torch.where(torch.arange(24) < length, 0, PADDING)[None]
        alone_btv = model(tokens_bt[:, :length])
        padded_btv = model(tokens_bt, documents_bt=documents_bt)
        assert padded_btv.isfinite().all()
        torch.testing.assert_close(padded_btv[:, :length], alone_btv, rtol=0, atol=1e-12)

    @torch.no_grad()
    def test_packed_documents_are_read_as_if_alone(self, parts):
        if parts.get("position") == "learned":
            pytest.skip("a learned position is counted from the row's beginning")
        model = build("encoder", **parts)
        tokens_bt = tokens(1)
        documents_bt = torch.tensor([[0] * 10 + [1] * 14])
        packed_btv = model(tokens_bt, documents_bt=documents_bt)
        alone_btv = torch.cat((model(tokens_bt[:, :10]), model(tokens_bt[:, 10:])), dim=1)
        torch.testing.assert_close(packed_btv, alone_btv, rtol=0, atol=tolerance(parts))

    @torch.no_grad()
    def test_some_positions_are_scored_as_in_all(self, parts):
        model = build("encoder", **parts)
        positions_bk = torch.tensor([[3, 7, 20], [0, 1, 23]])
        some_bkv = model(tokens(), positions_bk=positions_bk)
        all_btv = model(tokens())
        expected = torch.stack([all_btv[row, positions_bk[row]] for row in range(2)])
        torch.testing.assert_close(some_bkv, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("parts", ENCODER_DECODERS.values(), ids=ENCODER_DECODERS)
class TestEncoderDecoders:
    def test_every_weight_learns_and_the_target_is_causal(self, parts):
        model = build("encoder_decoder", **parts)
        source_bs, target_bt = tokens(seed=1), tokens(length=10)
        logits_btv = model(target_bt, source_bs=source_bs)
        logits_btv.logsumexp(-1).sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        target_bt[:, 6:] = (target_bt[:, 6:] + 1) % 19
        moved_t = (model(target_bt, source_bs=source_bs) - logits_btv).abs().amax(dim=(0, 2))
        assert moved_t[:6].max() == 0
        assert moved_t[6:].min() > 1e-6
        source_bs[:, -1] = (source_bs[:, -1] + 1) % 19
        assert (model(target_bt, source_bs=source_bs) - logits_btv)[:, 0].abs().max() > 1e-6

    @torch.no_grad()
    def test_the_padding_of_a_source_changes_nothing(self, parts):
        model = build("encoder_decoder", **parts)
        source_bs, target_bt = tokens(1, seed=1), tokens(1, 10)
        documents_bs = torch.where(torch.arange(24) < 9, 0, PADDING)[None]
        padded_btv = model(target_bt, source_bs=source_bs, source_documents_bs=documents_bs)
        alone_btv = model(target_bt, source_bs=source_bs[:, :9])
        torch.testing.assert_close(padded_btv, alone_btv, rtol=0, atol=1e-12)

    @torch.no_grad()
    def test_pairs_packed_in_a_row_are_read_as_if_alone(self, parts):
        if parts.get("position") == "sinusoidal":
            pytest.skip("an added position is counted from the row's beginning")
        model = build("encoder_decoder", **parts)
        source_bs, target_bt = tokens(1, seed=1), tokens(1, 12)
        packed_btv = model(
            target_bt,
            documents_bt=torch.tensor([[0] * 5 + [1] * 7]),
            source_bs=source_bs,
            source_documents_bs=torch.tensor([[0] * 8 + [1] * 16]),
        )
        first_btv = model(target_bt[:, :5], source_bs=source_bs[:, :8])
        second_btv = model(target_bt[:, 5:], source_bs=source_bs[:, 8:])
        torch.testing.assert_close(
            packed_btv, torch.cat((first_btv, second_btv), 1), rtol=0, atol=tolerance(parts)
        )

    @torch.no_grad()
    def test_written_piece_by_piece_it_is_what_one_pass_gives(self, parts):
        model = build("encoder_decoder", **parts)
        source_bs, target_bt = tokens(seed=1), tokens(length=10)
        memory, cache = model.encode_source(source_bs), KVCache(model.config, 2, dtype=torch.float64)
        pieces = [
            model(piece_bt, cache=cache, memory=memory) for piece_bt in target_bt.split([4, 3, 1, 1, 1], 1)
        ]
        torch.testing.assert_close(
            torch.cat(pieces, 1), model(target_bt, source_bs=source_bs), rtol=0, atol=1e-12
        )

    def test_a_source_is_asked_for(self, parts):
        with pytest.raises(ConfigError, match="architecture=encoder_decoder needs a source"):
            build("encoder_decoder", **parts)(tokens())


def test_a_decoder_takes_no_source():
    with pytest.raises(ConfigError, match="architecture=decoder takes no source"):
        build("decoder")(tokens(), source_bs=tokens())


@torch.no_grad()
def test_a_window_hides_what_is_further_away():
    """One layer each: a position moves only what sees it."""
    for architecture in ("decoder", "encoder"):
        model = build(architecture, n_layers=1, attention_window=5)
        changed_bt = tokens()
        changed_bt[:, 12] = (changed_bt[:, 12] + 1) % 19
        moved_t = (model(changed_bt) - model(tokens())).abs().amax(dim=(0, 2))
        first = 12 if architecture == "decoder" else 8
        assert moved_t.nonzero().flatten().tolist() == list(range(first, 17))


@torch.no_grad()
def test_layers_without_the_window_come_round():
    model = build("encoder", attention_window=5, global_attention_every=2)
    assert model.stack.is_local == [False, True, False]


@torch.no_grad()
def test_a_windowed_decoder_writes_by_its_cache_what_one_pass_gives():
    model = build("decoder", attention_window=4)
    cache = KVCache(model.config, 2, dtype=torch.float64)
    pieces = [model(piece_bt, cache=cache) for piece_bt in tokens().split([7, 5, 1, 1, 10], 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(tokens()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 20), (16, 300)])
def test_distances_fall_into_the_buckets_of_t5(causal, buckets, distance):
    config = ModelConfig(**SIZES, position="relative", relative_buckets=buckets, relative_distance=distance)
    ours = RelativePosition(config, causal=causal)._bucket(torch.arange(-1000, 1001))
    theirs = T5Attention._relative_position_bucket(
        -torch.arange(-1000, 1001), bidirectional=not causal, num_buckets=buckets, max_distance=distance
    )
    assert ours.equal(theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_encoder_layers": 2}, "n_encoder_layers=2: is for architecture=encoder_decoder"),
        ({"pooler": True}, "pooler=True: is for architecture=encoder"),
        ({"global_attention_every": 2}, "for models with an attention_window"),
        ({"rotary_share": 0.5, "position": "none"}, "rotary_share=0.5: is for position=rotary"),
        ({"rotary_share": 0.0}, "above 0 and at most 1"),
        ({"rotary_share": 0.3}, "even width, not 1"),
        ({"attention_window": 0}, "attention_window=0: must be a positive integer"),
        ({"n_segments": -1}, "must not be negative"),
        ({"architecture": "encodr"}, "did you mean 'encoder'"),
    ],
)
def test_what_does_not_go_together_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**(SIZES | changes))
