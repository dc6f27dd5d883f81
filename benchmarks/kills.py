"""Kill a training run with SIGKILL at random instants, go on each time, and compare its last weights with those of
a run that was left alone.

    python benchmarks/kills.py --kills 30

A third of the kills fall inside a save. Dropout, accumulation and an epoch boundary are on. Every kill comes after
the first save, every restart must say a step above 0, and every run must end with bit-equal weights.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KILLS_PER_RUN = 3  # of which the first falls inside a save


def command(work: Path, name: str) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "train.py"),
        "data=text",
        f"data.paths=[{work}/text/*.py]",
        f"runs_dir={work}/runs",
        f"shards_dir={work}/shards",
        f"name={name}",
        "tokenizer.vocab_size=512",
        "model.d_model=192",
        "model.n_layers=4",
        "model.context_length=64",
        "model.dropout=0.1",
        "data.batch_size=16",
        "data.micro_batch_size=4",
        "trainer.max_steps=90",
        "trainer.val_check_interval=30",
        "trainer.accelerator=cpu",
        "trainer.precision=32-true",
        "checkpoint.every_n_steps=6",
        "samples.every_n_steps=40",
    ]


def make_text(folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:12]:
        shutil.copy(path, folder)


def saving(run: Path) -> bool:
    return any(run.glob("checkpoints/.step_*.tmp"))


def saved_steps(run: Path) -> set[str]:
    return {path.parent.name for path in run.glob("checkpoints/step_*/manifest.json")}


def wait_for(condition, process: subprocess.Popen) -> bool:
    while process.poll() is None:
        if condition():
            return True
        time.sleep(0.0005)
    return False


def kill_once(args: list[str], run: Path, inside: bool, chance: random.Random) -> tuple[bool, str]:
    """Start, kill after a new save at a random instant; returns whether it fell inside a save, and the output."""
    before = saved_steps(run)
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(args, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        alive = wait_for(lambda: saved_steps(run) - before, process)
        if inside:
            alive = alive and wait_for(lambda: saving(run), process)
            time.sleep(chance.uniform(0, 0.05))
        else:
            time.sleep(chance.uniform(0, 1.5))
        fell_inside = saving(run)
        if alive and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.seek(0)
        return fell_inside and saving(run), output.read()


def resumed_from(output: str) -> int:
    found = re.search(r"Resuming from step (\d+)", output)
    return int(found.group(1)) if found else 0


def finish(args: list[str]) -> str:
    done = subprocess.run(args, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"The run failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout + done.stderr


def last_weights(run: Path) -> bytes:
    return (sorted(run.glob("checkpoints/step_*"))[-1] / "model.safetensors").read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_text(work / "text")
        finish(command(work, "reference"))
        expected = last_weights(work / "runs/reference")
        inside = kills = equal = runs = 0
        while kills < args.kills:
            runs += 1
            name = f"killed-{runs}"
            run = work / "runs" / name
            for attempt in range(min(KILLS_PER_RUN, args.kills - kills)):
                fell_inside, output = kill_once(command(work, name), run, attempt == 0, chance)
                kills += 1
                inside += fell_inside
                if attempt and not resumed_from(output):
                    sys.exit(f"{name}, kill {attempt + 1}: did not resume from a step above 0:\n{output}")
            if not resumed_from(finish(command(work, name))):
                sys.exit(f"{name}: did not resume from a step above 0")
            equal += last_weights(run) == expected
            print(
                f"{name}: kills so far {kills}, inside a save {inside}, bit-equal runs {equal} of {runs}",
                flush=True,
            )
    print(f"| {kills} kills | {inside} inside a save | {runs} runs | {equal} bit-equal |")
    sys.exit(equal != runs)


if __name__ == "__main__":
    main()
