"""`llm train -m`: from one command line to the command of each job, and through them all."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from llm.cli.compose import compose, key_fields
from llm.cli.overrides import Words, split_words
from llm.cli.values import takes_any_text
from llm.errors import ConfigError
from llm.jobs.sweep import Sweep, SweepJob, show_jobs
from llm.redaction import redacted

_LONGEST_LABEL = 120  # bytes
_SHARED = ("name", "runs_dir", "dry_run")


@dataclass(frozen=True)
class Axis:
    """A key that takes several values.

    Args:
        key: the key or group.
        options: its values as typed; none for an interval, in which only a sampler can choose.
        word: an interval, as `key=...` in Hydra's grammar.
    """

    key: str
    options: tuple[str, ...] = ()
    word: str = ""

    def low(self) -> str:
        """One value: the first, or the low end of an interval."""
        if self.options:
            return self.options[0]
        interval: Any = OverridesParser.create().parse_override(self.word).value()
        return str(interval.start)


@dataclass(frozen=True)
class Plan:
    """A sweep's command line: the words that all jobs share, and the axes along which they differ."""

    shared: tuple[str, ...]
    axes: tuple[Axis, ...]
    name: str | None = None

    @property
    def keys(self) -> list[str]:
        """The keys that differ."""
        return [axis.key for axis in self.axes]

    def words(self, values: Mapping[str, str], name: str | None = None) -> list[str]:
        """The words of the job with these values."""
        named = [f"name={name}"] if name else []
        return [*self.shared, *(f"{key}={value}" for key, value in values.items()), *named]

    def grid(self) -> Iterator[dict[str, str]]:
        """Every combination of values, the last axis fastest.

        Raises:
            ConfigError: an axis is an interval.
        """
        for axis in self.axes:
            if not axis.options:
                raise ConfigError(f"{axis.word}: an interval needs a sampler; add sweep.sampler=tpe.")
        for values in itertools.product(*(axis.options for axis in self.axes)):
            yield dict(zip(self.keys, values, strict=True))


def run(argv: Sequence[str]) -> int:
    """Run the jobs of a sweep, those that have finished excepted; returns the exit code.

    Raises:
        ConfigError: a word of the sweep, or of a job that is known beforehand, is wrong; nothing was started.
    """
    words = split_words(argv)
    own = [f"{key}={value}" for key, value in words.given if _is_own(key)]
    settings = compose("sweep", own).config["sweep"]
    plan = read_plan(words)
    by_grid = settings["sampler"] == "grid"
    known = list(plan.grid()) if by_grid else [{axis.key: axis.low() for axis in plan.axes}]
    name = plan.name or default_name(plan, known[0])
    # Each is composed before the first is started, so that a mistake in the last costs nothing.
    jobs = [job(plan, name, values) for values in known]
    if jobs[0].config["dry_run"]:
        return show_jobs(jobs if by_grid else [])
    with Sweep(Path(jobs[0].config["runs_dir"]) / name, settings, plan.keys) as sweep:
        if by_grid:
            sweep.run_all(jobs)
        else:
            from llm.cli.search import search

            search(plan, settings, lambda values: sweep.run(job(plan, name, values)))
        return sweep.finish()


def job(plan: Plan, sweep: str, values: Mapping[str, str]) -> SweepJob:
    """The job of `sweep` with these values, its config composed and checked."""
    words = plan.words(values, f"{sweep}/{label(plan, values)}")
    return SweepJob(dict(values), words, compose("train", words).config)


def _is_own(key: str) -> bool:
    return key.partition(".")[0] == "sweep"


def read_plan(words: Words) -> Plan:
    """Take a sweep's command line apart.

    A key that is given several times takes each of these values as typed. In one that is given once, commas part
    values as in Hydra, with its `choice`, `range` and `interval`, unless the key takes any text, commas included.

    Raises:
        ConfigError: nothing is swept, or what all jobs have to share is.
    """
    given: dict[str, list[str]] = {}
    for key, value in words.given:
        if not _is_own(key):
            given.setdefault(key, []).append(value)
    name = _name(given)
    flags = ["--config-dir", words.flags["config_dir"]] if "config_dir" in words.flags else []
    axes = _axes(given, flags)
    swept = [axis for axis in axes if axis.word or len(axis.options) > 1]
    if not swept:
        raise ConfigError(
            "-m: no key has several values; write them as optimizer.lr=1e-3,3e-4, or give the key twice."
        )
    single = [f"{axis.key}={axis.low()}" for axis in axes if axis not in swept]
    # What fits nowhere goes along, for the first job's composition to refuse.
    odd = [part for strange in words.strange for part in strange.typed.split(" ", 1)] + words.bare
    return Plan((*flags, *odd, *single), tuple(swept), name)


def _name(given: dict[str, list[str]]) -> str | None:
    """The sweep's name, taken out of `given`."""
    for key in _SHARED:
        if len(given.get(key, [])) > 1:
            raise ConfigError(f"{key}: the jobs of a sweep share this; give it once.")
    return next(iter(given.pop("name", [])), None)


def _axes(given: Mapping[str, Sequence[str]], flags: Sequence[str]) -> list[Axis]:
    """Each key with its values, one or several."""
    axes = {key: _parse(key, texts) for key, texts in given.items()}
    fields = key_fields("train", [*flags, *(f"{axis.key}={axis.low()}" for axis in axes.values())])
    for key, (first, *others) in given.items():
        field = fields(key)
        if not others and field is not None and takes_any_text(field.annotation):
            axes[key] = Axis(key, (first,))
    return list(axes.values())


def _parse(key: str, texts: Sequence[str]) -> Axis:
    if len(texts) > 1:
        return Axis(key, tuple(dict.fromkeys(texts)))
    try:
        override = OverridesParser.create().parse_override(f"{key}={texts[0]}")
    except HydraException:
        return Axis(key, (texts[0],))
    if not override.is_sweep_override():
        return Axis(key, (texts[0],))
    if override.is_interval_sweep():
        return Axis(key, word=f"{key}={texts[0]}")
    return Axis(key, tuple(dict.fromkeys(override.sweep_string_iterator())))


def label(plan: Plan, values: Mapping[str, str]) -> str:
    """A job's folder: what differs, secrets left out, in characters that any file system takes, and no other job's."""
    leaves = [key.rpartition(".")[2] for key in plan.keys]
    names = [leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(plan.keys, leaves, strict=True)]
    plain = {key: re.sub(r"[^\w.+-]+", "_", redacted(values[key], key)) for key in plan.keys}
    text = "-".join(f"{name}_{plain[key]}" for name, key in zip(names, plan.keys, strict=True))
    if len(text.encode()) <= _LONGEST_LABEL and plain == dict(values):
        return text
    digest = sha256(repr(sorted(values.items())).encode()).hexdigest()[:8]
    return f"{text.encode()[:_LONGEST_LABEL].decode(errors='ignore')}-{digest}"


def default_name(plan: Plan, values: Mapping[str, str]) -> str:
    """A sweep's name: the model, data and task that its jobs share, and what differs between them.

    Args:
        plan: the sweep.
        values: of any of its jobs.
    """
    choices = compose("train", plan.words(values)).choices
    shared = [choices[group] for group in ("model", "data", "task") if group not in plan.keys]
    parts = [*shared, "sweep", *(key.rpartition(".")[2] for key in plan.keys)]
    return "-".join(str(part).replace("/", "_") for part in parts)
