"""Training as launchers start it: torchrun on one node and on two, SLURM's srun; and what ends a job of many processes."""

import csv
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm.train import checkpoint
from llm.train.run import Run

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.distributed

SAME = ["optimizer.lr=3e-4", "schedule=inverse_sqrt", "schedule.warmup_steps=2"]

MISCHIEF = '''
import os
import resource
import signal
import time

import lightning as L


def limit():
    # As on a full disk: this process's next file of more than a kilobyte can't be written.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))


DEEDS = {
    "sleep": lambda: time.sleep(3600),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "limit": limit,
}


class Mischief(L.Callback):
    """Does something once, on rank 1, as a step begins."""

    def __init__(self, deed, step):
        self.deed, self.step = deed, step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if trainer.global_rank == 1 and trainer.global_step == self.step and first:
            DEEDS[self.deed]()
'''


@pytest.fixture
def mischief(tmp_path):
    """The words that let rank 1 do something at a step."""
    (tmp_path / "mischief").mkdir()
    (tmp_path / "mischief/__init__.py").write_text(MISCHIEF)
    choice = tmp_path / "my_conf/callbacks/mischief.yaml"
    choice.parent.mkdir(parents=True)
    choice.write_text(
        "# Something goes wrong.\nmischief:\n  _target_: mischief.Mischief\n  deed: ???\n  step: ???\n"
    )

    def words(deed, step):
        extra = ["--config-dir", str(tmp_path / "my_conf"), "packages=[mischief]", "callbacks=mischief"]
        return [*extra, f"callbacks.mischief.deed={deed}", f"callbacks.mischief.step={step}"]

    return words


def free_port(low=20000, high=32000):
    """A port that nobody listens on; torchrun's and SLURM's stores take the one that they are told."""
    for port in random.sample(range(low, high), 100):
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port")


class Processes:
    """Commands that run side by side, their output together."""

    def __init__(self, tmp_path):
        self.folder = tmp_path
        self.started = []

    def start(self, *command, **names):
        log = self.folder / f"log-{len(self.started)}.txt"
        environment = {**os.environ, "PYTHONPATH": str(self.folder), **names}
        with log.open("w") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        self.started.append((process, log))
        return process

    def wait(self, timeout=180):
        """Their exit codes and outputs."""
        codes = [process.wait(timeout=timeout) for process, _ in self.started]
        texts = [log.read_text() for _, log in self.started]
        self.started = []
        return codes, texts

    def end(self):
        for process, _ in self.started:
            process.kill()
            process.wait()


@pytest.fixture
def processes(tmp_path):
    processes = Processes(tmp_path)
    yield processes
    processes.end()


def torchrun(python, *words, nodes=(1, 0), port=None, restarts=0):
    count, rank = nodes
    meeting = [f"--node-rank={rank}", "--master-addr=127.0.0.1", f"--master-port={port or free_port()}"]
    if restarts:
        # As docs/strategies.md has it; this store, too, outlives a restart.
        meeting = ["--standalone", f"--max-restarts={restarts}"]
    return [
        *[python, "-m", "torch.distributed.run", f"--nproc-per-node={2 // count}", f"--nnodes={count}"],
        *[*meeting, str(ROOT / "train.py"), *words],
    ]


def replaced(words, *more):
    """The words, with others in the place of those with the same keys."""
    given = {word.partition("=")[0] for word in more}
    return [*(word for word in words if word.partition("=")[0] not in given), *more]


def losses(folder):
    with (folder / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


@pytest.fixture(scope="module")
def alone(python, tmp_path_factory, tiny_words, text_folder):
    """The losses of one process, and the words that it was started with."""
    folder = tmp_path_factory.mktemp("alone")
    shards = tmp_path_factory.getbasetemp() / "shards"
    words = [*tiny_words, *SAME, f"data.paths=[{text_folder}/*.txt]", f"shards_dir={shards}"]
    words += ["trainer.max_steps=12"]
    done = subprocess.run(
        [python, str(ROOT / "train.py"), *words, f"runs_dir={folder}", "name=a"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return words, losses(folder / "a")


@pytest.fixture
def words(alone, tmp_path):
    return [*alone[0], f"runs_dir={tmp_path}/runs", "name=a"]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "deepspeed_zero2"])
def test_torchrun_trains_the_model_of_one_process(python, processes, words, alone, tmp_path, strategy):
    """`trainer.devices` follows from the launcher; rank 0 alone is heard of and logs."""
    extra, names = [], {}
    if strategy == "fsdp":
        pytest.importorskip("wandb")
        extra, names = ["logger=wandb"], {"WANDB_MODE": "offline"}
    elif strategy == "deepspeed_zero2":
        pytest.importorskip("deepspeed")
    processes.start(*torchrun(python, *words, f"strategy={strategy}", *extra), **names)
    codes, (output,) = processes.wait()
    assert codes == [0], output
    assert output.count("Report: ") == 1
    assert losses(tmp_path / "runs/a") == pytest.approx(alone[1], abs=2e-6)
    assert Run.open(tmp_path / "runs/a").record["strategy"]["world_size"] == 2
    assert len(list(tmp_path.glob("runs/a/wandb/offline-run-*"))) == len(names)


def test_two_nodes_train_the_model_of_one_process(python, processes, words, alone, tmp_path):
    port = free_port()
    for node in (0, 1):
        more = ["strategy=fsdp", "trainer.num_nodes=2"]
        processes.start(*torchrun(python, *words, *more, nodes=(2, node), port=port))
    codes, outputs = processes.wait()
    assert codes == [0, 0], outputs
    assert ["Report: " in output for output in outputs] == [True, False]
    assert losses(tmp_path / "runs/a") == pytest.approx(alone[1], abs=2e-6)
    assert Run.open(tmp_path / "runs/a").record["strategy"]["world_size"] == 2


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_goes_on(python, processes, words, alone, mischief, tmp_path):
    more = ["strategy=fsdp", *mischief("kill", 10)]
    processes.start(*torchrun(python, *words, *more, restarts=1))
    codes, (output,) = processes.wait()
    assert codes == [0], output
    assert "Resuming from step 8" in output
    assert losses(tmp_path / "runs/a") == pytest.approx(alone[1], abs=2e-6)
    assert [resume["step"] for resume in Run.open(tmp_path / "runs/a").record["resumes"]] == [8]


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (["optimizer.lr=1e-3"], r"config values differ.*rank 1 .*optimizer\.lr=0\.001.*rank 0 .*=0\.0003"),
        ([], r"versions differ.*rank 1 .*safetensors=9\.9\.9.*rank 0 .*safetensors=\d"),
    ],
)
def test_nodes_that_differ_are_refused(python, processes, words, tmp_path, there, message):
    port = free_port()
    names = {}
    for node in (0, 1):
        more = ["strategy=ddp", "trainer.num_nodes=2", *(there if node else [])]
        if node and not there:
            about = tmp_path / "other/safetensors-9.9.9.dist-info/METADATA"
            about.parent.mkdir(parents=True)
            about.write_text("Metadata-Version: 2.1\nName: safetensors\nVersion: 9.9.9\n")
            names = {"PYTHONPATH": str(tmp_path / "other")}
        command = torchrun(python, *replaced(words, *more), nodes=(2, node), port=port)
        processes.start(*command, **names)
    codes, outputs = processes.wait()
    assert 0 not in codes
    assert re.search(message, outputs[0])
    assert "Traceback" not in re.sub(r"torch.distributed.*", "", outputs[0].partition("error: ")[0])
    assert not (tmp_path / "runs/a").exists()


def test_a_launcher_of_another_size_is_told_what_to_write(python, processes, words, tmp_path):
    processes.start(*torchrun(python, *words, "strategy=single"))
    codes, (output,) = processes.wait()
    assert codes != [0]
    assert "set them to match, for instance strategy=ddp trainer.devices=2." in output
    assert not (tmp_path / "runs/a/run.json").exists()


def test_a_hang_ends_the_job_and_leaves_stacks(python, processes, words, mischief, tmp_path):
    more = ["strategy=ddp", "trainer.devices=2", "hang_timeout=3", *mischief("sleep", 3)]
    began = time.monotonic()
    processes.start(python, str(ROOT / "train.py"), *words, *more)
    codes, (output,) = processes.wait()
    assert codes != [0], output
    assert time.monotonic() - began < 100
    assert "error: Rank 1" in output
    stacks = {rank: (tmp_path / f"runs/a/hang-rank-{rank}.txt").read_text() for rank in (0, 1)}
    assert "in on_train_batch_start" in stacks[1]
    assert "mischief" in stacks[1]
    assert "mischief" not in stacks[0]
    assert Run.open(tmp_path / "runs/a").record["status"] == "failed"


def test_a_full_disk_on_one_rank_ends_the_job_and_keeps_the_last_checkpoint(
    python, processes, words, alone, mischief, tmp_path
):
    train = [python, str(ROOT / "train.py"), *words, "strategy=fsdp", "trainer.devices=2"]
    processes.start(*train, *mischief("limit", 5))
    codes, (output,) = processes.wait()
    assert codes == [1], output
    assert re.search(r"error: The checkpoint of step 8 could not be written.*Make room", output)
    folders = checkpoint.folders(tmp_path / "runs/a/checkpoints")
    assert [folder.name for folder in folders] == ["step_00000004"]
    assert checkpoint.verify(folders[0])["step"] == 4
    processes.start(*train)
    codes, (output,) = processes.wait()
    assert codes == [0], output
    assert "Resuming from step 4" in output
    assert losses(tmp_path / "runs/a") == pytest.approx(alone[1], abs=2e-6)


SRUN = """
import os, signal, subprocess, sys

command = [word for word in sys.argv[1:] if not word.startswith("--")]
tasks = [
    subprocess.Popen(command, env={**os.environ, "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n), "SLURM_NODEID": "0"})
    for n in range(int(os.environ["SLURM_NTASKS"]))
]
signal.signal(signal.SIGTERM, lambda signum, _: [task.send_signal(signum) for task in tasks])
open("srun.pid", "w").write(str(os.getpid()))
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.fixture
def slurm(python, tmp_path):
    """The variables of a job of two tasks; `srun` starts its command once a task, `scontrol` notes what it is asked."""
    for name, text in {
        "python": f'exec {python} "$@"',
        "srun": f'exec {sys.executable} {tmp_path}/srun.py "$@"',
        "scontrol": f'echo "$@" >> {tmp_path}/scontrol.txt',
    }.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    (tmp_path / "srun.py").write_text(SRUN)
    return {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        # Lightning takes the port from the job's number.
        "SLURM_JOB_ID": f"7{free_port(15000, 24999) - 15000:04}",
        "SLURM_JOB_NAME": "llm",
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODELIST": "127.0.0.1",
    }


def test_a_slurm_job_that_is_stopped_goes_on_when_it_is_requeued(processes, slurm, words, tmp_path):
    def sbatch(*more):
        command = ["bash", str(ROOT / "deploy/train.sbatch"), *replaced(words, "strategy=fsdp", *more)]
        processes.start("env", "-C", str(tmp_path), *command, **slurm)

    sbatch("trainer.max_steps=100000", "checkpoint.every_n_steps=100000")
    wait_for_steps(tmp_path / "runs/a/metrics.csv", processes)
    os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGTERM)
    codes, (output,) = processes.wait()
    assert codes == [143], output
    step = int(re.search(r"at step (\d+), saved", output).group(1))
    assert (tmp_path / "scontrol.txt").read_text() == f"requeue {slurm['SLURM_JOB_ID']}\n"
    assert not list(tmp_path.rglob("*.ckpt"))

    slurm["SLURM_RESTART_COUNT"] = "1"
    sbatch(f"trainer.max_steps={step + 2}", "checkpoint.every_n_steps=100000")
    codes, (output,) = processes.wait()
    assert codes == [0], output
    assert f"Resuming from step {step}" in output
    assert output.count("Report: ") == 1
    assert Run.open(tmp_path / "runs/a").record["strategy"]["world_size"] == 2


def wait_for_steps(metrics, processes, n_steps=3):
    deadline = time.monotonic() + 120
    while not metrics.exists() or metrics.read_text().count("\n") <= n_steps:
        assert all(process.poll() is None for process, _ in processes.started), processes.wait()
        assert time.monotonic() < deadline, "no steps within two minutes"
        time.sleep(0.05)
