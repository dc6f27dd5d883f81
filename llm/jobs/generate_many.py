"""`llm generate data.paths=…`: a line of text for each line of prompts, going on where it was stopped."""

import hashlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm.build import Config
from llm.data.documents import LeftOut
from llm.data.files.inputs import find_files
from llm.data.sources.jsonl import LinesPiece
from llm.data.sources.records import Fields
from llm.errors import ConfigError
from llm.files import sha256, write_atomically
from llm.generation import BatchEngine, is_generative, respond, responds_whole, rows_within
from llm.generation.offline import BatchWriter, Prompt, Written
from llm.generation.sampling import Sampling
from llm.model import Transformer
from llm.tokenizer import Tokenizer

# Settings that change no text.
WITHOUT_EFFECT = ("out", "max_batch_size", "cache_gib")


def generate_files(
    config: Config, net: Transformer, tokenizer: Tokenizer, sampling: Sampling, checkpoint: Path
) -> int:
    """Write `out`; returns the exit code."""
    out = Path(config["out"])
    paths = find_files(config["data"]["paths"])
    journal = Journal.of(out, config, paths, checkpoint)
    prompts = [
        prompt for prompt in _prompts(paths, config["data"]["text"]) if prompt.number not in journal.done
    ]
    if journal.done:
        print(f"Going on: {len(journal.done)} prompts are done, {len(prompts)} are left.")
    writer = BatchWriter(tokenizer, sampling, config["max_new_tokens"], config["num_samples"], journal.seed)
    rows = config["max_batch_size"]
    if is_generative(net):
        rows = rows_within(net, rows, config["cache_gib"])
    for written in _written(writer, net, prompts, rows):
        journal.add(written)
    journal.finish()
    print(f"Wrote {len(journal.done)} prompts' texts to {out}.")
    return 0


class Journal:
    """The lines that are finished, kept beside `out` until all are: the first line says what they were made with."""

    def __init__(self, out: Path, head: dict[str, Any]) -> None:
        """Read what there is, or begin.

        Raises:
            ConfigError: what there is was made with other settings or prompts.
        """
        self._out, self._path = out, out.with_name(f"{out.name}.partial")
        lines = self._read()
        kept = json.loads(lines[0]) if lines else head
        if kept["made_with"] != head["made_with"]:
            raise ConfigError(
                f"{self._path} was made with other settings, prompts or weights. Use the same command, or delete it."
            )
        self.seed = int(kept["seed"])
        self.done = {record["index"]: line for line in lines[1:] if (record := json.loads(line))}
        # What a kill left of a line goes with this.
        write_atomically(self._path, "".join([_line(kept), *(f"{line}\n" for line in lines[1:])]))

    @classmethod
    def of(cls, out: Path, config: Config, paths: list[str], checkpoint: Path) -> "Journal":
        """The journal of a command.

        Raises:
            ConfigError: `out` is there already.
        """
        if out.exists():
            raise ConfigError(f"out={out} exists already. Choose another, or delete it.")
        settings = {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}
        facts = [settings, [sha256(Path(path)) for path in paths], sha256(checkpoint / "manifest.json")]
        made_with = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        seed = secrets.randbits(31) if config["seed"] is None else config["seed"]
        return cls(out, {"made_with": made_with, "seed": seed})

    def add(self, written: Written) -> None:
        """Keep what was written for one prompt."""
        number, text = written.prompt
        record = {"index": number, "prompt": text, "texts": written.texts, "finish_reasons": written.finishes}
        line = _line(record)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)
        self.done[number] = line.removesuffix("\n")

    def finish(self) -> None:
        """Put all lines into `out`, in the prompts' order."""
        write_atomically(self._out, "".join(f"{self.done[number]}\n" for number in sorted(self.done)))
        self._path.unlink()

    def _read(self) -> list[str]:
        if not self._path.exists():
            return []
        whole, _, _ = self._path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
        return whole.split("\n") if whole else []


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _prompts(paths: list[str], field: str) -> Iterator[Prompt]:
    number = 0
    for path in paths:
        for document in LinesPiece(path, Fields(field), "error").documents(LeftOut()):
            yield Prompt(number, document.data.decode())
            number += 1


def _written(writer: BatchWriter, net: Transformer, prompts: list[Prompt], rows: int) -> Iterator[Written]:
    whole = [prompt for prompt in prompts if responds_whole(net, prompt.text)]
    if len(whole) < len(prompts):
        apart = {prompt.number for prompt in whole}
        together = [prompt for prompt in prompts if prompt.number not in apart]
        yield from writer.write(BatchEngine(net, rows=rows), together)
    for prompt in whole:
        yield Written(prompt, [respond(net, writer.tokenizer, prompt.text, writer.max_new_tokens)], ["stop"])
