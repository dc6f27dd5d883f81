"""What is read of a class from its source is what importing it would tell."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml
from annotated_types import Ge, Gt, Le

from llm.config import SCHEMAS, known_keys, resolve
from llm.config.static import COMPUTED, REQUIRED, Fields, find, signature

CONF = Path(__file__).resolve().parents[2] / "conf"


def targets_in(node: Any) -> set[str]:
    if isinstance(node, list):
        return {target for value in node for target in targets_in(value)}
    if not isinstance(node, dict):
        return set()
    own = {node["_target_"]} if "_target_" in node else set()
    return own | {target for value in node.values() for target in targets_in(value)}


OURS = sorted(
    target
    for file in CONF.rglob("*.yaml")
    for target in targets_in(yaml.safe_load(file.read_text(encoding="utf-8")))
    if target.startswith("llm.")
)


@pytest.mark.parametrize("target", sorted({*OURS, "llm.model.config.ModelConfig"}))
def test_the_source_tells_what_importing_tells(target: str) -> None:
    module, _, name = target.rpartition(".")
    thing = resolve(target) if target in OURS else getattr(__import__(module, fromlist=[name]), name)
    read, real = signature(target), inspect.signature(thing).parameters
    assert read is not None
    for key, field in read.fields.items():
        assert key in real
        default = real[key].default
        if field.default is REQUIRED:
            assert default is inspect.Parameter.empty
        elif field.default is not COMPUTED:
            assert field.default == default
    needed = [p for p in real.values() if p.kind is p.KEYWORD_ONLY or p.default is not p.empty]
    assert {parameter.name for parameter in needed} <= set(read.fields)


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda f: f.relative_to(CONF).as_posix())
def test_every_key_of_a_choice_is_an_argument(file: Path) -> None:
    node = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    for target in targets_in(node):
        read = signature(target)
        assert read is not None, target
        if target == node.get("_target_"):
            ours = {"_target_", "batch_size", "micro_batch_size", "repeat_batch", "steps", "sources"}
            assert set(node) - ours <= set(read.fields) or read.open


def test_types_are_those_of_the_class() -> None:
    from llm.model.config import ModelConfig, RopeScaling

    read, hints = signature("llm.model.config.ModelConfig"), get_type_hints(ModelConfig)
    assert read is not None
    for key, field in read.fields.items():
        if key == "rope_scaling":
            nested = [a for member in get_args(field.annotation) for a in getattr(member, "__metadata__", ())]
            assert nested == [Fields(f"{RopeScaling.__module__}.RopeScaling")]
        else:
            assert field.annotation == hints[key]


def test_functions_leave_out_what_the_program_passes() -> None:
    read = signature("llm.train.schedules.cosine")
    assert read is not None
    assert "total_steps" not in read.fields
    assert "warmup_steps" in read.fields


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text, encoding="utf-8")


def test_all_kinds_of_annotations(module: Path) -> None:
    write(
        module,
        "static_kinds",
        '''
from __future__ import annotations
import typing
import typing as t
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, ClassVar, Literal, Optional, Union
import torch
from annotated_types import Ge as at_least, Gt, Le
Share = Annotated[float, at_least(0), Le(0.5), Gt(limit)]
Mode = Literal["a", "b"]
try:
    Other = Mode | None
except TypeError:
    Other = None
@dataclass
class Base:
    first: int
@dataclass
class Leaf(Base):
    """Doc."""
    text: "str" = "é"  # what é means
    mode: Mode = "a"
    other: Other = None
    tensor: torch.Tensor | float = 1.0
    call: Callable[[int], int] | None = None
    numbers: Sequence[int] = ()
    pair: tuple[float, float] = (0.5, 1)
    old: Optional[Union[int, str]] = None
    full: typing.Optional[int] = None
    noted: Annotated[int, "x"] = 3
    bound: Annotated[int, Gt(0), at_most(5)] = 3
    share: Share | None = None
    made: list[str] = field(default_factory=list)
    plain: int = field(default=7)
    hidden: int = field(default=1, init=False)
    shared: ClassVar[int] = 3
    unknown: Undefined = 2
    def method(self): pass
''',
    )
    read = signature("static_kinds.Leaf")
    assert read is not None
    types = {key: field.annotation for key, field in read.fields.items()}
    assert types["first"] is int
    assert types["text"] is str
    assert types["mode"] == Literal["a", "b"]
    assert types["other"] == Literal["a", "b"] | None
    assert types["tensor"] is float
    assert get_origin(types["numbers"]).__name__ == "Sequence"
    assert types["pair"] == tuple[float, float]
    assert types["old"] == int | str | None
    assert types["full"] == int | None
    assert types["noted"] is int
    assert types["bound"] == Annotated[int, Gt(0)]
    assert types["share"] == Annotated[float, Ge(0), Le(0.5)] | None
    assert types["unknown"] is Any
    assert types["call"] is Any
    defaults = {key: field.default for key, field in read.fields.items()}
    assert defaults["first"] is REQUIRED
    assert defaults["made"] is COMPUTED
    assert (defaults["plain"], defaults["pair"]) == (7, (0.5, 1))
    assert read.fields["text"].doc == "what é means"
    assert {"hidden", "shared", "method"}.isdisjoint(read.fields)


def test_arguments_of_init_and_inheritance(module: Path) -> None:
    write(
        module,
        "static_init",
        """
class Parent:
    def __init__(self, first, size: int = 3, *args, name: str, **kwargs): pass
class Child(Parent): pass
class Bare: pass
class Foreign(dict): pass
def function(given, *, rate: float = 1.0): pass
""",
    )
    child = signature("static_init.Child")
    assert child is not None
    assert set(child.fields) == {"size", "name"}
    assert child.open
    bare, foreign, function = (signature(f"static_init.{name}") for name in ("Bare", "Foreign", "function"))
    assert bare is not None
    assert (bare.fields, bare.open) == ({}, False)
    assert foreign is not None
    assert foreign.open
    assert function is not None
    assert set(function.fields) == {"rate"}


def test_reexports_are_followed_inside_a_package_alone(module: Path) -> None:
    package = module / "static_package"
    (package / "inner").mkdir(parents=True)
    write(package, "__init__", "from .inner import Thing as Renamed\nfrom os import system\nimport json\n")
    write(package / "inner", "__init__", "from static_package.inner.deep import Thing\n")
    write(package / "inner", "deep", "class Thing: pass\n")
    found = find("static_package.Renamed")
    assert found is not None
    assert found.target == "static_package.inner.deep.Thing"
    for name in ("system", "json", "Thing", "inner", "json.loads"):
        assert find(f"static_package.{name}") is None


@pytest.mark.parametrize(
    "target", ["", "x", "no_such_package.Thing", "llm", "llm.Nothing", "torch", "sys.exit", "..a"]
)
def test_what_cant_be_found_is_none(target: str) -> None:
    assert signature(target) is None


def test_circular_imports_end(module: Path) -> None:
    package = module / "static_circle"
    package.mkdir()
    write(package, "__init__", "")
    write(package, "a", "from static_circle.b import X\n")
    write(package, "b", "from static_circle.a import X\n")
    assert find("static_circle.a.X") is None


def test_reading_imports_nothing() -> None:
    script = """
import sys
from llm.config.static import signature
for target in ("llm.model.config.ModelConfig", "llm.train.optimizers.Muon", "torch.optim.AdamW",
               "lightning.pytorch.strategies.DDPStrategy"):
    assert signature(target).fields, target
print(sorted({"torch", "lightning", "numpy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_key_of_a_command_has_words(command: str) -> None:
    # A mixture's sources have keys of their own, where there are sources.
    known = known_keys(SCHEMAS[command], {"data": {"sources": {"one": {}}}})
    named = {"data.sources.one"}
    assert [key for key, field in known.items() if not field.doc and key not in named] == []


def test_the_keys_of_nodes_are_keys_of_a_command() -> None:
    known = known_keys(SCHEMAS["plan"], {"data": {"sources": {"one": {}}}})
    nodes = {"model.rope_scaling.factor", "hardware.memory_gb", "task.template", "data.sources.one.weight"}
    assert nodes <= known.keys()
