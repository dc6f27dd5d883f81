"""Parameter groups, AdamW and Muon: against torch's own, and through a checkpoint and back."""

import copy
import gc
import io

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard

from llm.errors import ConfigError
from llm.model import ModelConfig, Transformer, init_weights
from llm.train import optimizers
from llm.train.optimizers import Muon, adamw, check_strategy, orthogonalize, orthogonalize_all, parameter_kind
from llm.train.parallelism import STRATEGIES

TINY = {"vocab_size": 31, "d_model": 16, "n_layers": 2, "n_heads": 2, "context_length": 8}
VARIANTS = {
    "default": {},
    "gpt": {
        "norm": "layer",
        "position": "learned",
        "attention_bias": True,
        "mlp_bias": True,
        "tie_embeddings": False,
    },
}
# Shapes: v vocabulary, d width.


def net(variant: str = "default") -> Transformer:
    model = Transformer(ModelConfig(**TINY, **VARIANTS[variant]))
    init_weights(model, seed=0)
    return model


def train(model: Transformer, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        tokens = torch.randint(31, (4, 9), generator=torch.Generator().manual_seed(step))
        logits = model(tokens[:, :-1])
        nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_tell_what_shapes_would(variant):
    for name, parameter in net(variant).named_parameters():
        kind = parameter_kind(name)
        assert (parameter.ndim == 2) == (kind in ("matrix", "head", "embedding")), name
        assert ("embedding." in name and "un" not in name) == (kind == "embedding"), name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.stack.blocks.0.attention.query.weight", "matrix"),
        ("_orig_mod.stack.blocks.0._checkpoint_wrapped_module.feed_forward.up.weight", "matrix"),
        ("stack.blocks.0.attention.query.bias", "bias"),
        ("stack.blocks.0.attention.query_norm.weight", "norm"),
        ("stack.blocks.0.residual.norms.attention.weight", "norm"),
        ("embedding.tokens.weight", "embedding"),
        ("stack.position_bias.weight", "embedding"),
        ("unembedding.weight", "head"),
        ("lm_head.weight", "head"),
        ("stack.blocks.0.attention.heads_mix.weight", "matrix"),
    ],
)
def test_kind_of_a_name(name, kind):
    assert parameter_kind(name) == kind


def test_decay_stays_when_a_strategy_flattens_parameters():
    flat = [(name, nn.Parameter(p.detach().flatten())) for name, p in net("gpt").named_parameters()]
    groups = adamw(flat, weight_decay=0.3).param_groups
    decayed = {id(p) for p in groups[0]["params"]}
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    expected = {id(p) for name, p in flat if parameter_kind(name) in ("matrix", "head")}
    assert decayed == expected
    assert sum(len(group["params"]) for group in groups) == len(flat)


def test_adamw_updates_as_torch_does():
    ours, theirs = net(), net()
    decayed = [p for n, p in theirs.named_parameters() if parameter_kind(n) == "matrix"]
    rest = [p for n, p in theirs.named_parameters() if parameter_kind(n) != "matrix"]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    train(ours, adamw(ours.named_parameters(), lr=1e-2), 3)
    train(theirs, torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8), 3)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, msg=name)


def test_fused_is_on_where_it_can_be_and_off_when_told():
    assert adamw(net().named_parameters()).defaults["fused"] is True
    assert adamw(net().named_parameters(), fused=False).defaults["fused"] is False
    with torch.device("meta"):
        model = Transformer(ModelConfig(**TINY))
    assert adamw(model.named_parameters()).defaults["fused"] is False


def test_frozen_parameters_are_left_out():
    model = net()
    model.embedding.requires_grad_(False)
    trained = {id(p) for group in adamw(model.named_parameters()).param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.stack.parameters()}
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        adamw(model.named_parameters())


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)])
def test_orthogonalize_brings_singular_values_near_one_and_keeps_the_directions(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    result = u.T @ orthogonalize(matrix[None])[0] @ vt.T
    off_diagonal = result - result.diagonal().diag()
    assert off_diagonal.abs().max() < 1e-4
    large = result.diagonal()[s > 0.05 * s.max()]
    assert large.min() > 0.6
    assert large.max() < 1.3


def test_stacks_of_one_shape_give_what_single_matrices_give(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 9), (9, 6), (6, 9), (5, 5), (6, 9), (9, 6)]
    matrices = [torch.randn(shape, generator=generator) for shape in shapes]
    single = [orthogonalize(matrix[None])[0] for matrix in matrices]
    for limit in (10**9, 110, 1):
        monkeypatch.setattr(optimizers, "STACK_ELEMENTS", limit)
        for a, b in zip(orthogonalize_all(matrices, orthogonalize), single, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=2e-6)


def test_zero_gradients_stay_zero():
    assert orthogonalize(torch.zeros(2, 3, 4)).count_nonzero() == 0


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_updates_matrices_as_torch_does(nesterov):
    # torch's own iterates in bfloat16 alone, which is what bounds the agreement here.
    named = [
        (f"layer.{i}.weight", nn.Parameter(torch.randn(shape))) for i, shape in enumerate([(8, 12), (20, 6)])
    ]
    theirs = [nn.Parameter(p.detach().clone()) for _, p in named]
    ours = Muon(named, lr=0.01, weight_decay=0.2, nesterov=nesterov, newton_schulz_dtype="bfloat16")
    reference = torch.optim.Muon(
        theirs, lr=0.01, weight_decay=0.2, nesterov=nesterov, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(3):
        for (_, a), b in zip(named, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(step))
            b.grad = a.grad.clone()
        ours.step()
        reference.step()
    for (_, a), b in zip(named, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=5e-4)


def test_muon_in_float32_is_the_formula():
    matrix = nn.Parameter(torch.randn(6, 10, dtype=torch.float64))
    start, grad = matrix.detach().clone(), torch.randn(6, 10, dtype=torch.float64)
    optimizer = Muon([("w", matrix)], lr=0.1, weight_decay=0.5, momentum=0.9)
    matrix.grad = grad
    optimizer.step()
    momentum = 0.1 * grad
    direction = 0.1 * grad + 0.9 * momentum
    expected = start * (1 - 0.1 * 0.5) - 0.1 * 0.2 * 10**0.5 * orthogonalize(direction[None])[0]
    torch.testing.assert_close(matrix.detach(), expected, rtol=0, atol=1e-12)


def test_a_muon_update_has_the_size_of_an_adamw_update():
    for shape in [(64, 64), (32, 128), (128, 32)]:
        matrix = nn.Parameter(torch.zeros(shape))
        matrix.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        Muon([("w", matrix)], lr=1.0).step()
        assert 0.15 < matrix.detach().square().mean().sqrt() < 0.25


def test_muon_gives_everything_else_to_adamw():
    ours, theirs = net("gpt"), net("gpt")
    optimizer = Muon(ours.named_parameters(), lr=1e-9, adam_lr=1e-2, fused=False)
    reference = adamw(theirs.named_parameters(), lr=1e-2, fused=False)
    train(ours, optimizer, 1)
    train(theirs, reference, 1)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if parameter_kind(name) != "matrix":
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, msg=name)
    keys = {parameter_kind(name): set(optimizer.state[p]) for name, p in ours.named_parameters()}
    assert keys.pop("matrix") == {"momentum_buffer"}
    assert all(found == {"step", "exp_avg", "exp_avg_sq"} for found in keys.values())


def test_a_schedule_scales_both_learning_rates():
    optimizer = Muon(net().named_parameters(), lr=1.0, adam_lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    rates = {group["algorithm"]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({"muon": 0.5, "adamw": 0.05})


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("make", [adamw, Muon])
def test_training_goes_on_bit_equal_from_a_saved_state(make, variant):
    straight = net(variant)
    train(straight, make(straight.named_parameters(), lr=1e-2), 5)

    first = net(variant)
    optimizer = make(first.named_parameters(), lr=1e-2)
    train(first, optimizer, 3)
    file = io.BytesIO()
    torch.save(get_state_dict(first, optimizer), file)

    weights, state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    second = net(variant)
    second.load_state_dict(weights)
    restored = make(second.named_parameters(), lr=1e-2)
    set_optimizer_state_dict(second, restored, state)
    train(second, restored, 2, first=3)
    for (name, a), b in zip(straight.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("make", [adamw, Muon])
def test_state_asked_for_before_the_first_step_changes_nothing(make):
    model = net()
    before = copy.deepcopy(model.state_dict())
    get_optimizer_state_dict(model, make(model.named_parameters()))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_muon_is_deterministic():
    runs = []
    for _ in range(2):
        model = net()
        train(model, Muon(model.named_parameters()), 3)
        runs.append(model.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_muon_learns():
    model = net()
    tokens = torch.randint(31, (4, 9), generator=torch.Generator().manual_seed(0))
    optimizer = Muon(model.named_parameters(), lr=2e-2, adam_lr=2e-2)
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.3


@pytest.mark.parametrize(
    ("make", "key", "value"),
    [
        (adamw, "lr", 0.0),
        (adamw, "weight_decay", -1.0),
        (adamw, "betas", (0.9, 1.0)),
        (adamw, "betas", (0.9,)),
        (adamw, "eps", 0.0),
        (Muon, "lr", -1.0),
        (Muon, "adam_lr", 0.0),
        (Muon, "momentum", 1.0),
        (Muon, "newton_schulz_steps", 0),
    ],
)
def test_values_out_of_range_name_their_key(make, key, value):
    with pytest.raises(ConfigError, match=rf"optimizer\.{key}="):
        make(net().named_parameters(), **{key: value})


def test_muon_refuses_flattened_matrices_and_strategies_that_flatten():
    with pytest.raises(ConfigError, match=r"w\.weight has the shape \(6,\)"):
        Muon([("w.weight", nn.Parameter(torch.zeros(6)))])
    for strategy in ("single", "ddp", "fsdp"):
        check_strategy(Muon, STRATEGIES[strategy])
    with pytest.raises(ConfigError, match=r"optimizer=muon doesn't work under strategy=deepspeed_zero3"):
        check_strategy(Muon, STRATEGIES["deepspeed_zero3"])
    check_strategy(adamw, STRATEGIES["deepspeed_zero3"])


def sharded_worker(rank: int, folder: str) -> None:
    """Train two steps as one of two FSDP2 ranks; rank 0 leaves whole weights and momenta in `folder`."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    train_sharded(rank, folder)
    # A sharded model that outlives its process group may abort its rank when Python ends.
    gc.collect()
    torch.distributed.destroy_process_group()


def train_sharded(rank: int, folder: str) -> None:
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    model = net()
    for block in model.stack.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = Muon(model.named_parameters(), lr=1e-2)
    train(model, optimizer, 2)
    options = StateDictOptions(full_state_dict=True)
    state = get_state_dict(model, optimizer, options=options)
    if rank == 0:
        torch.save(state, f"{folder}/state.pt")


@pytest.mark.distributed
def test_muon_sharded_is_muon_whole(spawn, tmp_path):
    spawn(sharded_worker, (str(tmp_path),), 2)
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    model = net()
    optimizer = Muon(model.named_parameters(), lr=1e-2)
    train(model, optimizer, 2)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(weights[name], parameter.detach(), rtol=0, atol=1e-6, msg=name)
    expected = get_optimizer_state_dict(model, optimizer)["state"]
    for name, values in expected.items():
        for key, value in values.items():
            torch.testing.assert_close(
                state["state"][name][key], value, rtol=1e-5, atol=1e-7, msg=f"{name} {key}"
            )
