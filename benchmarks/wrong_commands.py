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
    "pretrain pythia-14m --tokenizer_dir tokenizer --data TextFiles --data.train_data_path text --out_dir out "
    "--train.max_tokens 100000"
)

# What went wrong, the words for `python train.py` and bare Hydra, and litgpt's for the same ("" where it has none).
MISTAKES: tuple[tuple[str, str, str], ...] = (
    ("a key misspelt", "trainer.max_step=5", "--train.max_step 5"),
    ("a choice misspelt", "model=gpt_mediun", "MODEL pythia-14n"),
    ("a group misspelt", "strategi=ddp", "--optimiser AdamW"),
    ("a word for a number", "model.n_layers=four", "--model_config.n_layer four"),
    ("a word for a rate", "optimizer.lr=fast", "--optimizer.init_args.lr fast"),
    ("another tool's key", "learning_rate=1e-3", "--train.learning_rate 1e-3"),
    ("the same, in its group", "optimizer.learning_rate=1e-3", "--optimizer.init_args.learning_rate 1e-3"),
    ("another tool's key", "epochs=3", "--train.num_epochs 3"),
    ("another tool's key", "batch=8", "--train.batch 8"),
    ("another tool's key", "model.hidden_size=256", "--model_config.hidden_size 256"),
    ("another tool's key", "num_layers=4", "--model_config.num_layers 4"),
    ("a recipe that isn't there", "experiment=foo", "--config foo.yaml"),
    ("dashes", "--max_steps 5", "--max_steps 5"),
    ("a derived value by hand", "trainer.strategy=ddp", "--strategy ddp"),
    ("a derived value by hand", "trainer.accumulate_grad_batches=4", "--train.accumulate_grad_batches 4"),
    ("a derived value by hand", "trainer.logger=wandb", "--logger_name wand"),
    ("heads that don't divide", "model.n_kv_heads=2", "--model_config.n_query_groups 3"),
    ("a rate below zero", "optimizer.lr=-1e-3", "--optimizer.init_args.lr -1e-3"),
    ("an empty batch", "data.batch_size=0", "--train.global_batch_size 0"),
    ("what is needed left out", "data=text", "--tokenizer_dir"),
    (
        "a file that isn't there",
        "data=text 'data.paths=[nowhere/*.txt]'",
        "--data.train_data_path nowhere",
    ),
    ("a key taken away", "~optimizer", "--optimizer"),
    ("a key given twice", "seed=1 seed=2", "--seed 1 --seed 2"),
    ("nothing to go on with", "resume=must", "--resume runs/nowhere"),
    ("a config that names code to run", "optimizer._target_=os.system", "--optimizer os.system"),
)


@dataclass(frozen=True)
class Seen:
    """What one command showed: its exit code (None where it had to be ended), lines, seconds, and the telling line."""

    code: int | None
    lines: int
    seconds: float
    telling: str

    def __str__(self) -> str:
        code = "accepted, ran on" if self.code is None else f"exit {self.code}"
        lines = f"{self.lines} line{'s' * (self.lines != 1)}"
        return f"{code}, {lines}, {self.seconds:.1f} s<br>{cell(self.telling)}".removesuffix("<br>")


Row = tuple[str, str, str, Seen, Seen | None, Seen]


def cell(text: str) -> str:
    """Text for a cell of a table."""
    short = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
    return f"`{short.replace('|', '¦').replace('`', '´')}`" if short else ""


def run(command: str, folder: Path) -> Seen:
    """Run a command in a shell of its own, in an empty folder."""
    quiet = {"COLUMNS": "200", "HYDRA_FULL_ERROR": "0", "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
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
    output = re.sub(r"/\S*/site-packages/", "", output.replace(str(folder), "."))
    lines = [line for line in output.splitlines() if line.strip()]
    return Seen(code, len(lines), time.perf_counter() - begun, telling(lines, code))


def telling(lines: list[str], code: int | None) -> str:
    """The line that says what is wrong: the one with an error in it, or else the last; none of an accepted command."""
    if not code:
        return ""
    named = [
        line for line in lines if re.search(r"\berror\b|Error:|Exception|Could not", line, re.IGNORECASE)
    ]
    return (named or lines or [""])[-1 if any("Traceback" in line for line in lines) else 0].strip()


def litgpt_words(words: str) -> str:
    """litgpt's command line for a mistake; a model of its own stands behind MODEL."""
    if words.startswith("MODEL "):
        return LITGPT.replace("pythia-14m", words.removeprefix("MODEL "))
    return f"{LITGPT} {words}"


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


def rows(litgpt: str | None) -> list[Row]:
    found = []
    train, bare = (
        f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / name))}"
        for name in ("train.py", "benchmarks/bare_hydra.py")
    )
    for what, words, theirs in MISTAKES:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            furnish(Path(folder))
            here = run(f"{train} {words}", Path(folder))
            other = run(f"{shlex.quote(litgpt)} {litgpt_words(theirs)}", Path(folder)) if litgpt else None
            found.append((what, words, theirs, here, other, run(f"{bare} {words}", Path(folder))))
        print(f"{words}: {here.telling}", flush=True)
    return found


def summary(name: str, seen: list[Seen]) -> str:
    """How a program did over all of them."""
    caught = [one for one in seen if one.code]
    middle = sorted(caught, key=lambda one: one.lines)[len(caught) // 2].lines if caught else 0
    slow = sorted(one.seconds for one in seen)[len(seen) // 2]
    return f"| {name} | {len(caught)} of {len(seen)} | {middle} | {slow:.1f} s |"


def page(found: list[Row]) -> str:
    ours, bare = [row[3] for row in found], [row[5] for row in found]
    others = [row[4] for row in found if row[4] is not None]
    table = [
        f"| {what}: `{words}` | {here} | `... {theirs}`: {other or 'not run'} | {hydra} |"
        for what, words, theirs, here, other, hydra in found
    ]
    return "\n".join(
        [
            "# What a wrong command shows",
            "",
            "Twenty-five mistakes that people make, typed for real: what `python train.py` answers, what litgpt answers to",
            "its own words for the same mistake, and what a program on bare Hydra would, over the same `conf/`.",
            "[config.md](config.md#errors) says how a command is read.",
            "",
            "| | caught | lines shown, median | seconds, median |",
            "|---|---|---|---|",
            summary("here", ours),
            *([summary("litgpt", others)] if others else []),
            summary("bare Hydra", bare),
            "",
            "Caught means that the command ended with an exit code other than 0 within half a minute, whatever it said: the",
            "line beside it may be about something else. What bare Hydra accepts it prints, and a program behind it would go",
            "on with. `...` was `pretrain pythia-14m` with a vocabulary, a text file and folders, which litgpt trains on.",
            "Long lines are cut.",
            "",
            "| mistake | here | litgpt | bare Hydra |",
            "|---|---|---|---|",
            *table,
            "",
            "Made by `python benchmarks/wrong_commands.py --litgpt <its venv>/bin/litgpt`, on 2 cores that were busy with",
            "other work, so the seconds are upper bounds.",
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
    PAGE.write_text(page(rows(args.litgpt)), encoding="utf-8")
    print(f"\n{PAGE}")


if __name__ == "__main__":
    main()
