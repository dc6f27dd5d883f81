"""The end of training: the model scored, what came of it written down and shown, and the next command."""

import contextlib
import os
import shlex
import shutil
import sys
import textwrap
from pathlib import Path

from llm.files import read_json, write_json
from llm.jobs.beside_plan import lines_beside_plan
from llm.jobs.evaluate import keep
from llm.jobs.job import Job
from llm.jobs.samples import sample_writer
from llm.jobs.scored import Entry
from llm.jobs.show import show_entries
from llm.model import Transformer
from llm.report.run import write_report
from llm.train import checkpoint
from llm.train.derive import Derived
from llm.train.hardware import place
from llm.train.run import Run

# The next command's verb and prompt, by what such a model is given; a chat asks nothing yet.
NEXT = {
    "beginning": ("generate", "def main():"),
    "hidden": ("generate", "for <mask> in"),
    "text": ("generate", "a text of yours"),
    "chat": ("chat", ""),
}


def finish(job: Job, derived: Derived, net: Transformer, seen: dict[str, float]) -> None:
    """Score the trained model; write evaluation.json, results.json and the report; show how it went.

    `seen` is what was planned and measured of memory and speed.
    """
    run, config, corpus = job.run, job.config, job.corpus
    folder = checkpoint.find(run.checkpoints, None)
    last = checkpoint.verify(folder)
    place(net, derived.accelerator)
    found = job.evaluate(net, folder.name)
    entries = [one.entry for one in keep(run, found, config["save_outputs"])]
    training = {
        "evaluation": "training",
        "data": corpus.name,
        "split": "train",
        "metrics": {
            "steps": last["step"],
            "tokens": round(last["samples"] * job.sample_cost.mean.counted),
            **seen,
        },
        "examples": last["samples"],
        "checkpoint": folder.name,
        "sample": sample_writer(config, net, corpus).first(),
        "report": str(run.folder / "report.html"),
        "next": next_command(run, *NEXT[job.collate.given]),
    }
    write_json(run.results, [*entries, training])
    # trainer.max_time may end a run before its last step.
    run.update(status="finished" if last["step"] >= derived.max_steps else "stopped")
    write_report(run.folder)
    show_end(run, entries, training)


def read_results(run: Run) -> tuple[list[Entry], Entry] | None:
    """What `finish` wrote: the entries and, last, the training's; None where that is missing or damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        *entries, training = read_json(run.results)
        figures = {name: float(value) for name, value in training["metrics"].items()}
        figures |= {name: int(figures[name]) for name in ("steps", "tokens")}
        words = {name: str(training[name]) for name in ("sample", "next")}
        return [_readable(entry) for entry in entries], {**words, "metrics": figures}
    return None


def _readable(entry: Entry) -> Entry:
    """An entry of results.json with what is printed of it."""
    metrics = {str(name): float(value) for name, value in entry["metrics"].items()}
    about = {name: str(entry[name]) for name in ("evaluation", "data", "split")}
    return {**about, "examples": int(entry["examples"]), "metrics": metrics}


def show_end(run: Run, entries: list[Entry], training: Entry) -> None:
    """Print how it ended: a sample, the figures, the report and the next command."""
    print(
        f"\nA sample of step {training['metrics']['steps']}:\n{textwrap.indent(training['sample'], '    ')}"
    )
    show_entries(f"{run.folder}, {training['metrics']['tokens']:,} tokens", entries)
    for line in lines_beside_plan(training["metrics"]):
        print(line)
    print(f"\nReport:  {run.folder / 'report.html'}\nNext:    {training['next']}")


def next_command(run: Run, verb: str, prompt: str) -> str:
    """What to type to let the model write, in words that work in this shell."""
    beside = Path(sys.executable).with_name("llm")
    found = shutil.which("llm")
    if found and Path(found).resolve() == beside.resolve():
        program = "llm"
    else:
        program = os.path.relpath(beside) if beside.exists() else f"{sys.executable} -m llm"
    asked = f" prompt={shlex.quote(prompt)}" if prompt else ""
    return f"{program} {verb} run={shlex.quote(str(run.folder))}{asked}"
