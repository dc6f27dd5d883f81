"""`llm doctor`: what this machine and installation can do, and what to do about what they can't."""

import netrc
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import llm
from llm.config import Composed
from llm.jobs.show import amount

State = Literal["ok", "note", "missing"]

OURS = "llm"
OPTIONAL = {
    "wandb": "logger=wandb",
    "tensorboard": "logger=tensorboard",
    "datasets": "data=huggingface",
    "transformers": "comparing with Hugging Face's models",
}
COMPILE_SECONDS = 90
COMPILE = """
import torch
f = torch.compile(lambda x: (x * 2 + 1).relu())
assert f(torch.ones(8)).tolist() == [3.0] * 8
"""
# The default run takes about 1.5 GB beside the program, and its shards and checkpoints 0.3 GB.
ENOUGH_MEMORY = 3e9
ENOUGH_DISK = 1e9


@dataclass(frozen=True)
class Check:
    """One thing looked at: how it stands, what was found, and what to do where that isn't well."""

    name: str
    state: State
    found: str
    advice: str = ""


def run(composed: Composed) -> int:
    """Look at everything and print it; returns 1 where something needed is missing, else 0."""
    config = composed.config
    trial = _start_compile() if config["compile"] else None
    missing = 0
    for check in checks(config, trial):
        mark = {"ok": "ok", "note": "note", "missing": "MISSING"}[check.state]
        print(f"{mark:<8}{check.name:<14}{check.found}", flush=True)
        if check.advice:
            print(f"{'':<22}-> {check.advice}")
        missing += check.state == "missing"
    print(f"\n{missing} thing(s) needed are missing." if missing else "\nAll that is needed is there.")
    return 1 if missing else 0


def checks(config: dict[str, Any], trial: "subprocess.Popen[bytes] | None") -> Iterator[Check]:
    """Everything that is looked at; `trial` is torch.compile at work beside it."""
    requirements, python = declared()
    yield check_python(python, platform.python_version())
    yield from check_needed(requirements)
    if _installed("torch"):
        from llm.train.hardware import cpp_compiler

        yield from check_hardware()
        yield check_compile(trial, cpp_compiler())
    yield check_memory(memory_bytes())
    for key in ("runs_dir", "shards_dir"):
        yield check_disk(key, Path(config[key]))
    yield from check_optional(requirements)
    yield check_wandb_key(os.environ)


def declared() -> tuple[list[Requirement], str]:
    """What our package requires, the extras' marked by them, and of which Python.

    In a checkout pyproject.toml says so; an installed package's metadata otherwise.
    """
    pyproject = Path(llm.__file__).resolve().parent.parent / "pyproject.toml"
    if pyproject.is_file():
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        extras = (line for lines in project["optional-dependencies"].values() for line in lines)
        plain = [Requirement(line) for line in project["dependencies"]]
        return plain + [_marked(line) for line in extras], project["requires-python"]
    lines = metadata.requires(OURS) or []
    return [Requirement(line) for line in lines], metadata.metadata(OURS)["Requires-Python"]


def _marked(line: str) -> Requirement:
    return Requirement(f"{line}; extra == 'any'")


def _needed(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_python(wanted: str, found: str) -> Check:
    """Whether this Python is one that we are for."""
    if SpecifierSet(wanted).contains(found, prereleases=True):
        return Check("Python", "ok", f"{found} ({sys.executable})")
    return Check("Python", "missing", found, f"Make the environment with a Python {wanted}: make install.")


def check_needed(requirements: Iterable[Requirement]) -> Iterator[Check]:
    """The packages without which nothing goes, those that are well in one line."""
    fine = []
    for requirement in filter(_needed, requirements):
        found = _installed(requirement.name)
        if found is not None and requirement.specifier.contains(found, prereleases=True):
            fine.append(f"{requirement.name} {found}")
        else:
            yield Check(
                requirement.name,
                "missing",
                f"{found or 'not installed'}, and {requirement.specifier or 'any version'} is needed",
                f"pip install '{requirement.name}{requirement.specifier}'",
            )
    yield Check("packages", "ok", ", ".join(fine))


def check_optional(requirements: Iterable[Requirement]) -> Iterator[Check]:
    """The packages that only some choices need."""
    ranges = {r.name: r.specifier for r in requirements if not _needed(r)}
    for name, purpose in OPTIONAL.items():
        found, wanted = _installed(name), ranges.get(name, SpecifierSet())
        install = f"pip install '{name}{wanted}'"
        if found is None:
            yield Check(name, "note", "not installed", f"For {purpose}: {install}")
        elif not wanted.contains(found, prereleases=True):
            yield Check(name, "note", f"{found}, and {wanted} is needed", f"For {purpose}: {install}")
        else:
            yield Check(name, "ok", found)


def check_hardware() -> Iterator[Check]:
    """Cores, accelerators and bfloat16."""
    import torch

    from llm.train.hardware import accelerator_name, device_count, has_bf16

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("cores", "ok", f"{cores} for this process, torch uses {torch.get_num_threads()} threads")
    name = accelerator_name("auto")
    if name == "cpu":
        advice = "Models of some millions of parameters train in minutes; a GPU needs a torch built for it."
        yield Check("accelerator", "note", "none: training runs on the CPU", advice)
    else:
        device = torch.cuda.get_device_name(0) if name == "cuda" else name
        yield Check("accelerator", "ok", f"{device_count(name)} x {device}")
    if has_bf16(name):
        yield Check("bfloat16", "ok", f"in hardware on {name}: trainer.precision=auto takes bf16-mixed")
    else:
        yield Check("bfloat16", "note", f"not in hardware on {name}", "trainer.precision=auto takes 32-true.")


def _start_compile() -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", COMPILE]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def check_compile(trial: "subprocess.Popen[bytes] | None", compiler: str | None) -> Check:
    """Whether torch.compile works here, by a tiny function in a process of its own, within a time."""
    with_it = f"C++ compiler {compiler}" if compiler else "no C++ compiler"
    install = "" if compiler else " Install one (apt install g++, or xcode-select --install)."
    advice = f"Training works without: compile=false.{install}"
    if trial is None:
        return Check(
            "compile", "ok" if compiler else "note", f"{with_it}, not tried", "" if compiler else advice
        )
    try:
        code = trial.wait(COMPILE_SECONDS)
    except subprocess.TimeoutExpired:
        trial.kill()
        return Check("compile", "note", f"torch.compile took over {COMPILE_SECONDS} s; {with_it}", advice)
    if code:
        return Check("compile", "note", f"torch.compile fails; {with_it}", advice)
    return Check("compile", "ok", f"torch.compile works; {with_it}")


def memory_bytes() -> int | None:
    """The memory that this process may have, as far as the system tells."""
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    elif "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
        used = Path("/sys/fs/cgroup/memory.current")
        found.append(int(text) - (int(used.read_text()) if used.is_file() else 0))
    return min(found, default=None)


def check_memory(available: int | None) -> Check:
    """Whether the default run has room."""
    if available is None:
        return Check("memory", "note", "the system doesn't tell how much is free")
    if available >= ENOUGH_MEMORY:
        return Check("memory", "ok", f"{amount(available)}B free")
    advice = (
        "The default run takes about 2 GB: data.micro_batch_size=4 makes it less; dry_run=true says how much."
    )
    return Check("memory", "note", f"{amount(available)}B free", advice)


def check_disk(key: str, folder: Path) -> Check:
    """Whether a folder, which need not be there yet, can be written and has room."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    elsewhere = f"Set {key}= to a folder elsewhere."
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Check(key, "missing", f"{there} can't be written", elsewhere)
    free = shutil.disk_usage(there).free
    if free < ENOUGH_DISK:
        return Check(key, "missing", f"{amount(free)}B free in {there}", f"Make room, or: {elsewhere}")
    return Check(key, "ok", f"{amount(free)}B free in {there.resolve()}")


def check_wandb_key(environment: Any) -> Check:
    """Whether W&B would find a key; the key itself is never shown."""
    if environment.get("WANDB_API_KEY"):
        return Check("W&B key", "ok", "in WANDB_API_KEY (not shown)")
    try:
        known = netrc.netrc(environment.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        known = {}
    if "api.wandb.ai" in known:
        return Check("W&B key", "ok", "in .netrc (not shown)")
    return Check("W&B key", "note", "none", "logger=wandb then writes offline; wandb login sets a key.")
