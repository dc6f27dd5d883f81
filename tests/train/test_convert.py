import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from llm.cli.main import main
from llm.errors import CheckpointError
from llm.train import checkpoint
from llm.train.convert import convert
from llm.train.tensors import Stored

ABOUT = {"step": 5, "samples": 40, "best": None, "model": {}, "tokenizer": "t", "data": "d"}
# Fewer rows than shards, none at all, and rows that don't divide.
TENSORS = {
    "table.weight": torch.randn(7, 3, generator=torch.Generator().manual_seed(0)),
    "norm.weight": torch.randn(2, generator=torch.Generator().manual_seed(1)).bfloat16(),
    "norm.weight/step": torch.tensor(5.0),
}


def save(root):
    writer = checkpoint.CheckpointWriter(root, 5)
    writer.write(
        {
            checkpoint.MODEL_FILE: TENSORS,
            checkpoint.OPTIMIZER_FILE: {f"{name}/exp_avg": value for name, value in TENSORS.items()},
            checkpoint.rng_file(0): checkpoint.random_state(),
        }
    )
    return writer.publish(ABOUT)


def assert_equal(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        assert tensors[name].dtype is value.dtype
        assert torch.equal(tensors[name], value), name


@pytest.mark.parametrize("n_shards", [1, 2, 4])
def test_to_shards_and_back_is_the_same_to_the_bit(tmp_path, n_shards):
    whole = save(tmp_path / "whole")
    split = convert(whole, tmp_path / "split", n_shards)
    assert len(list((split / "model").iterdir())) == n_shards
    assert_equal(Stored(split, "model").read_whole(), TENSORS)

    again = convert(split, tmp_path / "again", None)
    # Read by the library that owns the format.
    assert_equal(load_file(again / checkpoint.MODEL_FILE), TENSORS)
    manifests = [checkpoint.verify(folder) for folder in (whole, split, again)]
    assert all({key: m[key] for key in ABOUT} == ABOUT for m in manifests)
    assert manifests[0]["files"].keys() == manifests[2]["files"].keys()
    assert load_file(again / checkpoint.rng_file(0)).keys() == checkpoint.random_state().keys()


def test_what_is_there_is_left_alone(tmp_path):
    folder = save(tmp_path)
    with pytest.raises(CheckpointError, match="exists already"):
        convert(folder, tmp_path, None)
    assert checkpoint.verify(folder)["step"] == 5


def test_shards_with_a_hole_are_damaged(tmp_path):
    split = convert(save(tmp_path / "whole"), tmp_path / "split", 2)
    next(iter(sorted((split / "model").iterdir()))).unlink()
    with pytest.raises(CheckpointError, match="missing"):
        convert(split, tmp_path / "again", None)
    with pytest.raises(CheckpointError, match=r"don't make up a whole norm\.weight"):
        Stored(split, "model")


MEASURED = """
import resource, sys
from pathlib import Path
from llm.train.convert import convert
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
convert(Path(sys.argv[1]), Path(sys.argv[2]), 2)
convert(Path(sys.argv[2]) / "step_00000005", Path(sys.argv[3]), None)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="ru_maxrss counts bytes there")
def test_memory_is_bounded_by_the_largest_tensor(tmp_path):
    writer = checkpoint.CheckpointWriter(tmp_path / "whole", 5)
    size = 32 << 20
    tensors = {f"w{i}": torch.ones(8, size // 32) for i in range(16)}
    writer.write({checkpoint.MODEL_FILE: tensors, checkpoint.OPTIMIZER_FILE: {"w0/step": torch.ones(())}})
    folder = writer.publish(ABOUT)
    words = [str(folder), str(tmp_path / "split"), str(tmp_path / "again")]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=True
    )
    # Pages of the mapped source count as long as the tensor is read.
    assert int(done.stdout) < 6 * size < sum(t.nbytes for t in tensors.values())


def test_the_command_converts_a_run(tiny, tmp_path, capsys):
    assert main(["train", *tiny, "name=a", "trainer.max_steps=2"]) == 0
    run = f"run={tmp_path}/runs/a"
    assert main(["convert", run, f"out={tmp_path}/split", "to=sharded", "shards=2"]) == 0
    assert "step_00000002: 5 files" in capsys.readouterr().out
    assert main(["convert", run, f"out={tmp_path}/split", "to=sharded"]) == 1
    assert "exists already" in capsys.readouterr().err
    # A run goes on from it as from any other.
    folder = f"{tmp_path}/split/step_00000002"
    assert main(["train", *tiny, "name=a", "trainer.max_steps=4", f"resume={folder}"]) == 0
    assert "Resuming from step 2" in capsys.readouterr().out
