import random

import numpy as np
import pytest
import torch
from torch import nn

from llm.errors import CheckpointError
from llm.files import write_json
from llm.train import checkpoint
from llm.train.checkpoint import CheckpointWriter


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def grouped_adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Two groups in another order than `model.parameters()`, so that matching by position would be wrong."""
    named = dict(model.named_parameters())
    decayed = [p for name, p in named.items() if name.endswith("weight")]
    plain = [p for name, p in named.items() if name.endswith("bias")]
    return torch.optim.AdamW([{"params": plain, "weight_decay": 0.0}, {"params": decayed}], lr=0.1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, n_steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_steps):
        optimizer.zero_grad()
        model(torch.randn(16, 4, generator=generator)).square().mean().backward()
        optimizer.step()


ABOUT = {"samples": 40, "best": None, "model": {}, "tokenizer": "t", "data": "d"}


def save(root, step=5, **about):
    writer = CheckpointWriter(root, step)
    model = small_model()
    optimizer = grouped_adamw(model)
    train(model, optimizer, step, seed=1)
    writer.write(
        {
            checkpoint.MODEL_FILE: checkpoint.weights(model),
            checkpoint.OPTIMIZER_FILE: checkpoint.optimizer_state(model, optimizer),
            checkpoint.rng_file(0): checkpoint.random_state(),
        }
    )
    return writer.publish({**ABOUT, "step": step, **about}), model, optimizer


def test_who_may_read_the_folder_may_read_a_checkpoint(tmp_path):
    writer = CheckpointWriter(tmp_path, 1)
    writer.write({"model.safetensors": {"weight": torch.zeros(1)}})
    mode = (writer.folder / "model.safetensors").stat().st_mode
    assert mode & 0o666 == writer.folder.stat().st_mode & 0o666


def test_restored_training_is_bit_equal_to_uninterrupted(tmp_path):
    folder, model, optimizer = save(tmp_path)
    train(model, optimizer, 7, seed=2)

    again = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    fresh = grouped_adamw(again)
    checkpoint.load_weights(again, checkpoint.load_tensors(folder / checkpoint.MODEL_FILE), folder)
    checkpoint.load_optimizer_state(again, fresh, checkpoint.load_tensors(folder / checkpoint.OPTIMIZER_FILE))
    train(again, fresh, 7, seed=2)

    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_learning_rate_comes_from_the_config_not_from_the_checkpoint(tmp_path):
    folder, model, _ = save(tmp_path)
    other = torch.optim.AdamW(model.parameters(), lr=0.25, weight_decay=0.125)
    checkpoint.load_optimizer_state(model, other, checkpoint.load_tensors(folder / checkpoint.OPTIMIZER_FILE))
    assert [(g["lr"], g["weight_decay"]) for g in other.param_groups] == [(0.25, 0.125)]


def test_random_states_return():
    state = checkpoint.random_state()
    first = torch.rand(3), np.random.rand(3), random.random(), random.gauss(0, 1)  # noqa: NPY002
    checkpoint.set_random_state(state)
    second = torch.rand(3), np.random.rand(3), random.random(), random.gauss(0, 1)  # noqa: NPY002
    assert torch.equal(first[0], second[0])
    assert (first[1] == second[1]).all()
    assert first[2:] == second[2:]


def test_a_folder_without_manifest_is_no_checkpoint(tmp_path):
    folder, *_ = save(tmp_path)
    (folder / checkpoint.MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        checkpoint.verify(folder)


@pytest.mark.parametrize("name", [checkpoint.MODEL_FILE, checkpoint.OPTIMIZER_FILE, checkpoint.rng_file(0)])
def test_one_flipped_bit_is_noticed_and_the_last_good_one_is_taken(tmp_path, name):
    good, *_ = save(tmp_path, step=5)
    bad, *_ = save(tmp_path, step=6)
    content = bytearray((bad / name).read_bytes())
    content[-1] ^= 1
    (bad / name).write_bytes(content)

    said: list[str] = []
    assert checkpoint.newest(tmp_path, said.append) == good
    assert "SHA-256" in said[0]
    assert name in said[0]


def test_a_truncated_file_is_noticed(tmp_path):
    folder, *_ = save(tmp_path)
    path = folder / checkpoint.MODEL_FILE
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="bytes, not the"):
        checkpoint.verify(folder)


def test_all_damaged_is_an_error_with_the_way_out(tmp_path):
    folder, *_ = save(tmp_path)
    (folder / checkpoint.MODEL_FILE).unlink()
    with pytest.raises(CheckpointError, match="resume=never"):
        checkpoint.newest(tmp_path, lambda _: None)


def test_a_truncated_manifest_is_an_error_not_a_crash(tmp_path):
    folder, *_ = save(tmp_path)
    text = (folder / checkpoint.MANIFEST).read_text()
    (folder / checkpoint.MANIFEST).write_text(text[: len(text) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.verify(folder)


def test_another_model_is_refused_and_nothing_is_changed(tmp_path):
    folder, *_ = save(tmp_path)
    other = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 2))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match="another model"):
        checkpoint.load_weights(other, checkpoint.load_tensors(folder / checkpoint.MODEL_FILE), folder)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_retention_keeps_last_best_and_every_nth(tmp_path):
    for step in (10, 20, 30, 40, 50, 60):
        (tmp_path / checkpoint.folder_name(step)).mkdir()
    going = [
        checkpoint.step_of(f) for f in checkpoint.expendable(tmp_path, keep_last=2, keep_every=20, best=30)
    ]
    assert going == [10]
    assert checkpoint.folder_name(60) == "step_00000060"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", "5"),
        ("model", None),
        ("best", {"step": 5}),
        ("tokenizer", 5),
        ("files", []),
        ("files", {"../other": {"bytes": 1, "sha256": ""}}),
    ],
)
def test_a_manifest_of_another_kind_is_damaged(tmp_path, key, value):
    folder, *_ = save(tmp_path)
    write_json(folder / checkpoint.MANIFEST, {**checkpoint.verify(folder), key: value})
    with pytest.raises(CheckpointError, match=rf"damaged \(it has no good {key}"):
        checkpoint.verify(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"numpy.rest": torch.tensor([1e9, 0, 0], dtype=torch.float64)},
        {"torch": torch.zeros(7, dtype=torch.uint8)},
        {"python": torch.zeros(3, dtype=torch.int64)},
        {"numpy.keys": torch.zeros(2, dtype=torch.int64)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_random_state_that_is_none_is_refused(change):
    state = checkpoint.random_state()
    with pytest.raises(CheckpointError, match="random state"):
        checkpoint.set_random_state(state | change)
    checkpoint.set_random_state(state)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("0.weight/exp_avg"),
        lambda state: state.update({"nobody/exp_avg": torch.zeros(2)}),
        lambda state: state.update({"0.weight/exp_avg": torch.zeros(2)}),
    ],
    ids=["missing", "strange", "misshapen"],
)
def test_the_state_of_another_optimizer_is_refused(tmp_path, change):
    folder, *_ = save(tmp_path)
    state = checkpoint.load_tensors(folder / checkpoint.OPTIMIZER_FILE)
    change(state)
    fresh = small_model()
    with pytest.raises(CheckpointError, match="another optimizer"):
        checkpoint.load_optimizer_state(fresh, grouped_adamw(fresh), state)
