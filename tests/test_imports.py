"""Imports run down only, and the big frameworks stay where they belong: read from the source, nothing is imported."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = (
    {"light_imports"},  # what llm/__init__.py sees to, before anything else is imported
    {"bounds", "errors", "files", "malloc", "pages", "redaction", "llm"},
    {"config"},
    {"model", "tokenizer"},
    {"adapter"},
    {"data", "hub"},
    {"objective", "generation"},  # score and read the batches that data makes
    {"train", "evaluation", "serve"},
    {"plan", "report"},  # try what train does, and show what it left behind
    {"build"},
    {"jobs"},
    {"cli"},
    {"entry"},
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
# Within llm/data, from the user's files to the data module.
OF_DATA = (
    *("files", "documents", "corpus", "sampling", "sources", "steps", "executors", "preparation"),
    *("collators", "mixture", "module"),
)
FRAMEWORKS = {
    "lightning": ("llm/train/", "llm/data/module.py", "llm/build/", "llm/jobs/"),
    "hydra": ("llm/cli/",),
    "omegaconf": ("llm/cli/",),
    "pydantic": ("llm/config/", "llm/serve/"),
}
SOURCES = sorted([*(ROOT / "llm").rglob("*.py"), ROOT / "train.py", ROOT / "evaluate.py"])


def part_of(file: Path) -> str:
    """The part of the house that a file belongs to."""
    relative = file.relative_to(ROOT)
    if relative.parts[0] != "llm" or relative.name == "__main__.py":
        return "entry"
    name = relative.parts[1].removesuffix(".py")
    return "llm" if name == "__init__" else name


@cache
def imported(file: Path) -> tuple[str, ...]:
    """The absolute names of the modules that a file imports, also inside functions."""
    return tuple(_imported(file))


def _imported(file: Path) -> Iterator[str]:
    package = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" if module == "llm" else module for alias in node.names)


def climbs(importer: str, module: str) -> bool:
    """Whether a file of the part `importer` may not import `module` of ours."""
    target = module.partition(".")[2].partition(".")[0] or "llm"
    target = target if target in RANK else "llm"  # a name in llm/__init__.py, such as __version__
    return target != importer and RANK[target] >= RANK[importer]


def test_every_part_has_a_layer() -> None:
    assert {part_of(file) for file in SOURCES} <= set(RANK)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_down_only(file: Path) -> None:
    ours = [module for module in imported(file) if module == "llm" or module.startswith("llm.")]
    assert [module for module in ours if climbs(part_of(file), module)] == []


def test_climbing_is_noticed() -> None:
    assert climbs("model", "llm.data.corpus")
    assert climbs("data", "llm.generation")
    assert climbs("config", "llm.cli")
    assert not climbs("jobs", "llm.build")
    assert not climbs("data", "llm.data.corpus")
    assert not climbs("cli", "llm.__version__")


@pytest.mark.parametrize("part", OF_DATA)
def test_imports_run_down_within_data(part: str) -> None:
    files = [ROOT / f"llm/data/{part}.py", *(ROOT / "llm/data" / part).glob("*.py")]
    modules = {m for file in files if file in SOURCES for m in imported(file)}
    parts = {m.split(".")[2] for m in modules if m.startswith("llm.data.")}
    assert modules
    assert "llm.data" not in modules
    assert parts <= set(OF_DATA[: OF_DATA.index(part) + 1])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_frameworks_stay_where_they_belong(framework: str) -> None:
    users = [file for file in SOURCES if any(m.partition(".")[0] == framework for m in imported(file))]
    assert users
    names = [file.relative_to(ROOT).as_posix() for file in users]
    assert [name for name in names if not name.startswith(FRAMEWORKS[framework])] == []


def test_the_model_needs_torch_alone() -> None:
    modules = {m for file in SOURCES if part_of(file) == "model" for m in imported(file)}
    theirs = {m.partition(".")[0] for m in modules} - {"llm", "torch"}
    assert theirs & {"lightning", "hydra", "omegaconf", "numpy", "pydantic", "transformers"} == set()
    assert all(m.startswith(("llm.model", "llm.errors")) for m in modules if m.startswith("llm"))
