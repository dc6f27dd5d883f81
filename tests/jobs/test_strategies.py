"""One override makes the same model: every strategy beside a single process, and any goes on from any other."""

import csv
import itertools
import json
import os
import shutil
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from llm.train import checkpoint
from llm.train.run import Run
from tests.commands import changed, without

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.distributed

FAMILIES = {
    "gpt": ["model=gpt_nano"],
    "bert": ["model=bert_nano", "task=masked_lm"],
    "t5": ["model=t5_nano", "task=span_corruption"],
}
SHAPE = {
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 2,
    "d_ff": 64,
    "context_length": 32,
}
# AdamW with decay, clipping that bites, and two micro-batches or more in each process.
SAME = [
    "optimizer.lr=3e-4",
    "optimizer.weight_decay=0.1",
    "trainer.gradient_clip_val=0.5",
    "schedule=inverse_sqrt",
    "schedule.warmup_steps=2",
    "model.dropout=0",
]
STRATEGIES = {
    "single": ["strategy=single"],
    "ddp": ["strategy=ddp", "trainer.devices=2"],
    "ddp on one": ["strategy=ddp", "trainer.devices=1"],
    "fsdp": ["strategy=fsdp", "trainer.devices=2"],
    # No other word: it takes the devices that are there.
    "fsdp on one": ["strategy=fsdp"],
    # Both processes have each sequence, so that two in a pass are two passes as well.
    "fsdp_tp": ["strategy=fsdp_tp", "trainer.devices=2", "data.micro_batch_size=4"],
    **{f"deepspeed_zero{n}": [f"strategy=deepspeed_zero{n}", "trainer.devices=2"] for n in (1, 2, 3)},
    **{f"deepspeed_zero{n} on one": [f"strategy=deepspeed_zero{n}", "trainer.devices=1"] for n in (1, 2, 3)},
    "deepspeed_zero3 recomputing": [
        "strategy=deepspeed_zero3",
        "trainer.devices=2",
        "activation_checkpointing=1",
    ],
    "fsdp recomputing": ["strategy=fsdp", "trainer.devices=2", "activation_checkpointing=selective"],
    **{
        f"{name} on four": [f"strategy={name}", "trainer.devices=4"]
        for name in ("ddp", "fsdp", "fsdp_tp", "deepspeed_zero3")
    },
}
CLASSES = {
    "single": "SingleDeviceStrategy",
    "ddp": "DDPStrategy",
    "fsdp": "FSDPStrategy",
    "fsdp_tp": "TensorParallelStrategy",
    **{f"deepspeed_zero{n}": "ZeroStrategy" for n in (1, 2, 3)},
}

HASHING = '''
import hashlib
import lightning as L

def whole(parameter):
    if hasattr(parameter, "ds_id"):
        from deepspeed.utils import safe_get_full_fp32_param

        return safe_get_full_fp32_param(parameter)
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter

class Hashing(L.Callback):
    """Writes down the hash of all weights as training starts."""

    def __init__(self, path):
        self.path = path

    def on_train_start(self, trainer, module):
        digest = hashlib.sha256()
        for name, parameter in sorted(module.model.named_parameters()):
            digest.update(name.encode() + whole(parameter).detach().numpy().tobytes())
        if trainer.is_global_zero:
            with open(self.path, "w") as file:
                file.write(digest.hexdigest())
'''


class Trained:
    """Runs of one tiny model a family, in one folder, each trained once."""

    def __init__(self, python, folder, words):
        self.python = python
        self.folder = folder
        self.words = without(words, "model.", "trainer.val_check", "checkpoint.", "runs_dir=")
        package = folder / "hashing"
        package.mkdir()
        (package / "__init__.py").write_text(HASHING)
        choice = folder / "my_conf/callbacks/hashing.yaml"
        choice.parent.mkdir(parents=True)
        choice.write_text(
            "# The hash of the first weights.\nhashing:\n  _target_: hashing.Hashing\n  path: ???\n"
        )
        self.run = cache(self.run)

    def start(self, name, family, strategy, n_steps, *more):
        command = [
            *[self.python, str(ROOT / "train.py"), f"name={name}", f"runs_dir={self.folder}/runs"],
            *changed(self.words, *STRATEGIES[strategy]),
            *FAMILIES[family],
            *[f"model.{key}={value}" for key, value in SHAPE.items()],
            *SAME,
            # Saving takes most strategies longer than a step.
            *["trainer.val_check_interval=10", "checkpoint.every_n_steps=10"],
            *[f"trainer.max_steps={n_steps}", *more],
        ]
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)

    def train(self, *arguments):
        done = self.start(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, family, strategy, n_steps=20):
        """The run of a strategy, from step 0."""
        name = f"{family}-{strategy}-{n_steps}".replace(" ", "_")
        hashing = ["packages=[hashing]", "callbacks=hashing", f"callbacks.hashing.path={self.folder}/{name}"]
        self.train(name, family, strategy, n_steps, "--config-dir", f"{self.folder}/my_conf", *hashing)
        return Run.open(self.folder / "runs" / name)

    def first_weights(self, run):
        return (self.folder / run.folder.name).read_text()


@pytest.fixture(scope="module")
def trained(python, tmp_path_factory, tiny_words, text_folder):
    words = [
        *tiny_words,
        f"data.paths=[{text_folder}/*.txt]",
        f"shards_dir={tmp_path_factory.getbasetemp()}/shards",
    ]
    return Trained(python, tmp_path_factory.mktemp("strategies"), words)


def columns(run, name):
    with run.metrics.open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def weights(run):
    return checkpoint.read_model(checkpoint.find(run.checkpoints, None))[1]


def assert_same(run, other):
    for name in ("train/loss", "val/loss"):
        assert columns(run, name) == pytest.approx(columns(other, name), abs=2e-6)
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-5


def case(*values, quick):
    """A case of a matrix, of which the quick ones run each time."""
    marks = [] if quick else [pytest.mark.slow]
    if any(value.startswith("deepspeed") for value in values):
        missing = find_spec("deepspeed") is None
        marks.append(pytest.mark.skipif(missing, reason="the extra deepspeed isn't installed"))
    return pytest.param(*values, marks=marks)


# ZeRO 1 and 2 leave the model whole and share what the optimizer has, whatever its architecture.
WHOLE = ("deepspeed_zero1", "deepspeed_zero2")


@pytest.mark.parametrize(
    ("family", "strategy"),
    [
        case(family, strategy, quick=strategy in CLASSES and (family == "gpt" or strategy not in WHOLE))
        for family in FAMILIES
        for strategy in STRATEGIES
        if strategy != "single"
    ],
)
def test_a_strategy_gives_the_model_of_one_process(trained, family, strategy):
    single, run = trained.run(family, "single"), trained.run(family, strategy)
    assert len(columns(run, "train/loss")) == 20
    assert max(columns(run, "grad_norm")) > 0.5
    assert columns(run, "grad_norm") == pytest.approx(columns(single, "grad_norm"), rel=1e-4)
    assert trained.first_weights(run) == trained.first_weights(single)
    assert_same(run, single)


@pytest.mark.parametrize("strategy", [case(name, quick=True) for name in CLASSES])
def test_the_record_says_what_ran(trained, strategy):
    run = trained.run("gpt", strategy)
    n_bytes = sum(value.numel() * 4 for value in weights(run).values())
    record = run.record["strategy"]
    world_size = 2 if "trainer.devices=2" in STRATEGIES[strategy] else 1
    assert record["class"] == CLASSES[strategy]
    assert record["world_size"] == world_size
    assert record.get("zero_stage") == (int(strategy[-1]) if "zero" in strategy else None)
    shares = 1 if strategy in ("ddp", "deepspeed_zero1", "deepspeed_zero2") else world_size
    # Tensor parallelism leaves norms and positions whole.
    assert record["parameter_bytes_per_rank"] == pytest.approx(n_bytes / shares, rel=0.06)


LAYOUTS = [name for name in STRATEGIES if not name.endswith(("recomputing", "on four"))]
# Those that a change of either end would break first; all pairs are among the slow tests.
DOZEN = {
    ("single", "ddp"),
    ("single", "fsdp"),
    ("single", "deepspeed_zero3"),
    ("ddp", "fsdp"),
    ("fsdp", "single"),
    ("fsdp", "fsdp on one"),
    ("fsdp", "deepspeed_zero2"),
    ("fsdp", "fsdp_tp"),
    ("fsdp_tp", "single"),
    ("fsdp_tp", "deepspeed_zero1"),
    ("deepspeed_zero1", "ddp"),
    ("deepspeed_zero2", "deepspeed_zero3"),
    ("deepspeed_zero3", "single"),
}
PAIRS = [
    *itertools.product(LAYOUTS, repeat=2),
    ("single", "fsdp_tp on four"),
    ("fsdp_tp on four", "fsdp"),
    ("fsdp on four", "single"),
    ("deepspeed_zero3 on four", "ddp on four"),
    ("ddp", "deepspeed_zero3 on four"),
]


@pytest.mark.parametrize(("first", "then"), [case(*pair, quick=pair in DOZEN) for pair in PAIRS])
def test_a_run_goes_on_under_another_strategy(trained, tmp_path, first, then):
    half = trained.run("gpt", first, 10)
    name = f"{first}-then-{then}".replace(" ", "_")
    shutil.copytree(half.folder, trained.folder / "runs" / name)
    out = trained.train(name, "gpt", then, 20)
    assert "Resuming from step 10" in out
    run = Run.open(trained.folder / "runs" / name)
    assert run.record["strategy"]["class"] == CLASSES[then.partition(" ")[0]]
    assert_same(run, trained.run("gpt", "single"))


@pytest.mark.parametrize("strategy", [case("fsdp", quick=True), case("deepspeed_zero2", quick=True)])
def test_a_checkpoint_of_another_model_is_refused_by_all_processes(trained, tmp_path, strategy):
    known = trained.run("gpt", "fsdp", 10).checkpoints / "step_00000010"
    # Beside its run, the config would be compared first.
    shutil.copytree(known, tmp_path / known.name)
    done = trained.start("other", "bert", strategy, 20, f"resume={tmp_path}/{known.name}")
    assert done.returncode == 1
    assert "holds another model" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["generate", "evaluate"])
def test_a_sharded_checkpoint_is_read_as_any_other(trained, verb):
    run = trained.run("gpt", "fsdp")
    assert list(run.checkpoints.glob("step_*/model/*.safetensors"))
    words = {"generate": ["prompt=def", "max_new_tokens=8", "temperature=0"], "evaluate": []}[verb]
    done = subprocess.run(
        [trained.python, "-m", "llm", verb, f"run={run.folder}", *words],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    if verb == "evaluate":
        entries = json.loads(run.evaluation.read_text())
        expected = json.loads(trained.run("gpt", "single").evaluation.read_text())
        assert entries[-1]["metrics"]["loss"] == pytest.approx(expected[-1]["metrics"]["loss"], abs=2e-6)


def test_a_split_model_is_scored_while_it_trains_as_a_whole_one(trained):
    found = []
    for strategy in ("single", "fsdp"):
        trained.train(f"scored-{strategy}", "gpt", strategy, 4, "eval_every_n_steps=2")
        run = Run.open(trained.folder / f"runs/scored-{strategy}")
        found.append(columns(run, "eval/perplexity/bits_per_byte"))
    assert len(found[0]) == 2
    assert found[1] == pytest.approx(found[0], abs=2e-6)
