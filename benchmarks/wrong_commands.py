"""What a person sees after each of 25 wrong commands: here, in litgpt, and in bare Hydra over the same conf/.

    python benchmarks/wrong_commands.py --litgpt /path/to/venv/bin/litgpt

Writes docs/errors.md. Every command is run for real, in a shell, in an empty folder; one that is still running after
half a minute has been accepted, and is ended. litgpt, from a venv of its own, may be left out: its column is then empty.
"""

import argparse
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/errors.md"
SECONDS = 30
WIDTH = 150
# A command that litgpt would run: a small model on a text file, with a vocabulary.
LITGPT = (
    "litgpt pretrain pythia-14m --tokenizer_dir tokenizer --data TextFiles --data.train_data_path text --out_dir out "
    "--train.max_tokens 100000"
)

ADAMW = """--optimizer '{"class_path": "torch.optim.AdamW", "init_args": {%s}}'"""
HOME = "/home/me"  # what the page calls the folder of a command

# What went wrong; our command and bare Hydra's, words alone where it is `python train.py`; litgpt's for the same, words
# alone where it is LITGPT. None where a tool has no such thing.
MISTAKES: tuple[tuple[str, str, str | None], ...] = (
    ("a verb misspelt", "llm trian", "litgpt pretrian"),
    ("a key misspelt", "trainer.max_step=5", "--train.max_step 5"),
    ("a choice misspelt", "model=gpt_mediun", "litgpt pretrain pythia-14n"),
    ("a group misspelt", "strategi=ddp", "--optimiser AdamW"),
    ("a word for a number", "model.n_layers=four", "--model_config.n_layer four"),
    ("null for a number", "model.n_layers=", "--train.global_batch_size null"),
    ("another tool's key", "learning_rate=1e-3", "--train.learning_rate 1e-3"),
    ("another tool's key", "epochs=3", "--train.num_epochs 3"),
    ("another tool's key", "batch=8", "--train.batch 8"),
    ("another tool's key", "hidden_size=256", "--model_config.hidden_size 256"),
    ("another tool's key", "num_layers=4", "--model_config.num_layers 4"),
    ("a recipe that isn't there", "experiment=foo", "--config foo.yaml"),
    ("dashes", "--max_steps 5", "--max_steps 5"),
    ("a derived value by hand", "trainer.strategy=ddp", "--strategy ddp"),
    ("a derived value by hand", "trainer.accumulate_grad_batches=4", "--train.accumulate_grad_batches 4"),
    ("heads that don't divide", "model.n_kv_heads=2", "--model_config.n_query_groups 3"),
    ("a rate below zero", "optimizer.lr=-1e-3", ADAMW % '"lr": -1e-3'),
    ("a precision that isn't there", "trainer.precision=fp8", "--precision fp8"),
    ("a list left open", "'optimizer.betas=[0.9, 0.95'", ADAMW % '"betas": [0.9, 0.95'),
    (
        "a file that isn't there",
        "data=text 'data.paths=[nowhere/*.txt]'",
        "--data.train_data_path nowhere",
    ),
    ("a run that isn't there", "llm generate run=runs/nowhere", "litgpt generate runs/nowhere"),
    ("nothing to go on with", "resume=must", "--resume runs/nowhere"),
    ("a key taken away", "~optimizer", "--optimizer"),
    ("a key given twice", "seed=1 seed=2", "--seed 1 --seed 2"),
    ("a config that names code to run", "optimizer._target_=os.system", "--optimizer os.system"),
)


@dataclass(frozen=True)
class Seen:
    """What one command did: its exit code (None where it had to be ended), what it showed, whether it wrote anything."""

    code: int | None
    lines: int
    seconds: float
    telling: str
    wrote: bool

    def __str__(self) -> str:
        code = "accepted, ran on" if self.code is None else f"exit {self.code}"
        lines = f"{self.lines} line{'s' * (self.lines != 1)}"
        return f"{code}, {lines}, {self.seconds:.1f} s<br>{cell(self.telling)}".removesuffix("<br>")


@dataclass(frozen=True)
class Row:
    """A mistake, the commands for it, and what each tool did."""

    what: str
    command: str
    theirs: str | None
    here: Seen
    litgpt: Seen | None
    hydra: Seen | None


def cell(text: str) -> str:
    """Text for a cell of a table."""
    short = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
    return f"`{short.replace('|', '¦').replace('`', '´')}`" if short else ""


def run(command: str, folder: Path) -> Seen:
    """Run a command in a shell of its own, in an empty folder."""
    quiet = {"COLUMNS": "200", "HYDRA_FULL_ERROR": "0", "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
    before = set(folder.rglob("*"))
    begun = time.perf_counter()
    process = subprocess.Popen(
        command,
        shell=True,
        cwd=folder,
        env={**os.environ, **quiet},
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        code = None
    seconds = time.perf_counter() - begun
    output = re.sub(r"/\S*/site-packages/", "", output.replace(str(folder), HOME))
    lines = [line for line in output.splitlines() if line.strip()]
    return Seen(code, len(lines), seconds, telling(lines, code), set(folder.rglob("*")) > before)


def telling(lines: list[str], code: int | None) -> str:
    """The line that says what is wrong: the one with an error in it, or else the first; none of an accepted command."""
    lines = [line for line in lines if not line.startswith("Set the environment variable HYDRA_FULL_ERROR")]
    if not code or not lines:
        return ""
    named = [
        number
        for number, line in enumerate(lines)
        if re.search(r"\berror\b|Error:|Exception|Could not|is not a ", line, re.IGNORECASE)
    ] or [0]
    number = named[-1 if any("Traceback" in line for line in lines) else 0]
    # Where a colon ends it, the next one says what.
    said = lines[number : number + 2] if lines[number].endswith(":") else [lines[number]]
    return " ".join(line.strip() for line in said)


def here_words(words: str) -> str:
    """Our command line for a mistake."""
    python, train = shlex.quote(sys.executable), shlex.quote(str(ROOT / "train.py"))
    if words.startswith("llm "):
        return f"PYTHONPATH={shlex.quote(str(ROOT))} {python} -m {words}"
    return f"{python} {train} {words}"


def hydra_words(words: str) -> str | None:
    """Bare Hydra's: another verb's config is named by a flag, and a verb that isn't there can't be said."""
    app = f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'benchmarks/bare_hydra.py'))}"
    if not words.startswith("llm "):
        return f"{app} {words}"
    _, verb, *rest = words.split()
    return f"{app} --config-name {verb} {' '.join(rest)}" if rest else None


def litgpt_words(litgpt: str, words: str) -> str:
    """litgpt's."""
    full = words if words.startswith("litgpt ") else f"{LITGPT} {words}"
    return full.replace("litgpt ", f"{shlex.quote(litgpt)} ", 1)


def furnish(folder: Path) -> None:
    """Give litgpt's command what it reads: a vocabulary and a text."""
    # It wants two files at least.
    text, other = folder / "text/a.txt", folder / "text/b.txt"
    for path in (text.parent, folder / "tokenizer"):
        path.mkdir()
    for file in (text, other):
        file.write_text(PAGE.with_name("config.md").read_text(encoding="utf-8") * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer/tokenizer"), vocab_size=400, minloglevel=2
    )


def row(what: str, words: str, theirs: str | None, litgpt: str | None) -> Row:
    """Make one mistake in every tool, each in a furnished folder of its own."""

    def seen(command: str | None) -> Seen | None:
        if command is None:
            return None
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            furnish(Path(folder))
            return run(command, Path(folder))

    here = seen(here_words(words))
    assert here is not None
    other = seen(litgpt_words(litgpt, theirs)) if litgpt and theirs else None
    print(f"{words}: {here.telling}", flush=True)
    return Row(what, words, theirs, here, other, seen(hydra_words(words)))


def summary(name: str, seen: list[Seen | None]) -> str:
    """How a program did over all of them."""
    known = [one for one in seen if one is not None]
    caught = [one for one in known if one.code]
    clean = sum(not one.wrote for one in caught)
    lines = statistics.median_low([one.lines for one in caught])
    seconds = statistics.median([one.seconds for one in caught])
    return f"| {name} | {len(caught)} of {len(known)} | {clean} | {lines} | {seconds:.1f} s |"


def page(found: list[Row]) -> str:
    """The whole page."""
    with_litgpt = any(one.litgpt for one in found)
    table = [
        f"| {one.what}: `{one.command}` | {one.here} | {f'`{one.theirs}`: {one.litgpt}' if one.litgpt else 'not run'} "
        f"| {one.hydra or 'no verbs there'} |"
        for one in found
    ]
    return "\n".join(
        [
            "# What a wrong command shows",
            "",
            f"Mistyped something? Nothing is lost: of these {len(found)} mistakes that people make, each typed for real,",
            "every one ends with a message of a line or two that names what is wrong and the way out, nearly all of them",
            "before anything was written. Beside it stand litgpt's answers to its own words for the same mistake, and those",
            "of a program on bare Hydra ([benchmarks/bare_hydra.py](../benchmarks/bare_hydra.py)) over the same `conf/`.",
            "[config.md](config.md#errors) says how a command is read.",
            "",
            "| | caught | of these before anything was written | lines shown, median | seconds, median |",
            "|---|---|---|---|---|",
            summary("here", [one.here for one in found]),
            *([summary("litgpt", [one.litgpt for one in found])] if with_litgpt else []),
            summary("bare Hydra", [one.hydra for one in found]),
            "",
            f"Caught means that the command ended with an exit code other than 0 within {SECONDS} seconds, whatever it said;",
            "lines and seconds are of those. What bare Hydra accepts it prints, and a program behind it would go on with.",
            f"litgpt's words follow `{LITGPT}`,",
            "with a vocabulary and a text there, which trains. A misspelt model it answers with all that it knows, and exit",
            "code 0. Long lines are cut.",
            "",
            "| mistake | here | litgpt | bare Hydra |",
            "|---|---|---|---|",
            *table,
            "",
            f"Made by `python benchmarks/wrong_commands.py --litgpt <its venv>/bin/litgpt`, on {os.cpu_count()} cores;",
            f"load average {os.getloadavg()[0]:.1f} at the end.",
            "",
        ]
    )


def main() -> None:
    """Run them all and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--litgpt", help="the litgpt program; without it its column stays empty")
    args = parser.parse_args()
    found = [row(*mistake, args.litgpt) for mistake in MISTAKES]
    PAGE.write_text(page(found), encoding="utf-8")
    print(f"\n{PAGE}")


if __name__ == "__main__":
    main()
