"""Read the arguments of classes and functions from source, importing nothing: names, types, defaults.

Checking a config and printing help must neither run the code that the config names nor wait seconds for
torch, so both look at the source text. What can't be read there (a type built at run time) counts as any type.
"""

import ast
import builtins
import collections.abc
import importlib.util
import pathlib
import typing
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import annotated_types

_TYPING = {"typing": typing, "collections.abc": collections.abc, "pathlib": pathlib}
_OPAQUE: Any = object()  # a type that no plain value can have, such as a tensor
_BOUNDS = ("Gt", "Ge", "Lt", "Le")
_CALLABLES = (typing.Callable, collections.abc.Callable)


class _Token:
    """A named marker that prints as its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


REQUIRED: Any = _Token("required")
COMPUTED: Any = _Token("computed")  # there is a default, but only running the code would tell it


@dataclass(frozen=True)
class Fields:
    """Marks a dictionary whose keys are the arguments of the dataclass at `target`."""

    target: str


@dataclass(frozen=True)
class Field:
    """One key: its type, its default and, where somebody wrote one, a line on what it does."""

    annotation: Any = Any
    default: Any = REQUIRED
    doc: str = ""


@dataclass(frozen=True)
class Signature:
    """The keys that a node may have; `open` when it takes others too."""

    fields: dict[str, Field] = field(default_factory=dict)
    open: bool = False


@dataclass(frozen=True)
class _Imported:
    module: str
    name: str


@dataclass(frozen=True)
class _Module:
    name: str
    names: dict[str, Any]
    lines: list[str]

    @property
    def root(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Definition:
    """A class or function statement and the module that it stands in."""

    module: _Module
    node: ast.ClassDef | ast.FunctionDef

    @property
    def target(self) -> str:
        """The dotted name of where it is defined."""
        return f"{self.module.name}.{self.node.name}"

    @property
    def is_class(self) -> bool:
        """Whether it is a class rather than a function."""
        return isinstance(self.node, ast.ClassDef)


def find(target: str) -> Definition | None:
    """What `package.module.name` is defined as, re-exports inside the package followed, else None."""
    module, _, name = target.rpartition(".")
    found = _lookup(module, name)
    return found if isinstance(found, Definition) else None


def signature(target: str) -> Signature | None:
    """The arguments that a config may give to `target`, or None where no such class or function can be read.

    Positional arguments without a default are left out where keyword-only ones follow or where they are objects:
    those are what the program itself passes, such as an optimizer's parameters.
    """
    found = find(target)
    return None if found is None else _signature(found)


def _signature(found: Definition) -> Signature:
    node = found.node
    if isinstance(node, ast.FunctionDef):
        return _function_signature(node, found.module, skip=0)
    if _is_dataclass(node):
        return _dataclass_signature(found, node)
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _function_signature(statement, found.module, skip=1)
    for base in _bases(found, node):
        return _signature(base)
    return Signature(open=any(_last_name(b) not in ("Protocol", "ABC", "object") for b in node.bases))


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any(_decorator_name(d) == "dataclass" for d in node.decorator_list)


def _dataclass_signature(found: Definition, node: ast.ClassDef) -> Signature:
    fields: dict[str, Field] = {}
    for base in reversed(_bases(found, node)):
        fields |= _signature(base).fields
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if _last_name(statement.annotation) == "ClassVar" or _is_not_an_argument(statement.value):
                fields.pop(statement.target.id, None)  # of a base
                continue
            annotation = annotation_type(statement.annotation, found.module)
            if statement.value is None and _is_an_object(statement.annotation, found.module):
                continue
            doc = _comment(statement, found.module)
            fields[statement.target.id] = Field(annotation, _default(statement.value), doc)
    return Signature(fields)


def _function_signature(function: ast.FunctionDef, module: _Module, skip: int) -> Signature:
    arguments = function.args
    positional = (arguments.posonlyargs + arguments.args)[skip:]
    first_default = len(positional) - len(arguments.defaults)
    required = positional[: max(0, first_default)]
    ours = [] if arguments.kwonlyargs else [a for a in required if not _is_an_object(a.annotation, module)]
    pairs: list[tuple[ast.arg, ast.expr | None]] = [(a, None) for a in ours]
    pairs += zip(
        positional[max(0, first_default) :], arguments.defaults[max(0, -first_default) :], strict=True
    )
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    fields = {
        a.arg: Field(annotation_type(a.annotation, module), _default(d), _comment(d or a, module))
        for a, d in pairs
    }
    return Signature(fields, open=arguments.kwarg is not None)


def _bases(found: Definition, node: ast.ClassDef) -> list[Definition]:
    bases = (_lookup(found.module.name, base.id) for base in node.bases if isinstance(base, ast.Name))
    return [base for base in bases if isinstance(base, Definition)]


def _decorator_name(node: ast.expr) -> str:
    return _last_name(node.func if isinstance(node, ast.Call) else node)


def _last_name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=value):
            return _last_name(value)
    return ""


def _is_an_object(annotation: ast.expr | None, module: _Module) -> bool:
    found = Any if annotation is None else _evaluate(annotation, module)
    return found is _OPAQUE or any(isinstance(mark, Fields) for mark in getattr(found, "__metadata__", ()))


def _comment(node: ast.stmt | ast.expr | ast.arg, module: _Module) -> str:
    """What stands behind a node on its last line, as a comment."""
    line = module.lines[(node.end_lineno or 1) - 1].encode()
    return line[node.end_col_offset :].decode().partition("# ")[2].strip()


def _is_not_an_argument(value: ast.expr | None) -> bool:
    keywords = value.keywords if isinstance(value, ast.Call) and _last_name(value.func) == "field" else []
    return any(k.arg == "init" and isinstance(k.value, ast.Constant) and not k.value.value for k in keywords)


def _default(value: ast.expr | None) -> Any:
    if value is None:
        return REQUIRED
    if isinstance(value, ast.Call) and _last_name(value.func) == "field":
        given = {k.arg: k.value for k in value.keywords}
        if "default_factory" in given:
            return COMPUTED
        return _default(given.get("default"))
    try:
        return ast.literal_eval(value)
    except ValueError:
        return COMPUTED


def annotation_type(node: ast.expr | None, module: _Module) -> Any:
    """The type that an annotation stands for; `Any` where it can't be read from the source."""
    found = _OPAQUE if node is None else _evaluate(node, module)
    return Any if found is _OPAQUE else found


def _evaluate(node: ast.expr, module: _Module) -> Any:
    match node:
        case ast.Constant(value=None):
            return type(None)
        case ast.Constant(value=str(text)):
            return _evaluate(ast.parse(text, mode="eval").body, module)
        case ast.Name(id=name):
            return _named(name, module)
        case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in _TYPING:
            return _standard(owner, name)
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return _union([_evaluate(left, module), _evaluate(right, module)])
        case ast.Subscript(value=value, slice=arguments):
            return _subscript(_evaluate(value, module), arguments, module)
    return _OPAQUE


def _subscript(origin: Any, node: ast.expr, module: _Module) -> Any:
    if origin is Literal:
        values = ast.literal_eval(node)
        return Literal[values if isinstance(values, tuple) else (values,)]
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    arguments = [... if _is_ellipsis(part) else _evaluate(part, module) for part in parts]
    if origin in (Union, typing.Optional):
        return _union(arguments + ([type(None)] if origin is typing.Optional else []))
    if origin is Annotated:
        bounds = [bound for part in parts[1:] if (bound := _bound(part, module))]
        return Annotated[(arguments[0], *bounds)] if bounds else arguments[0]
    if origin is typing.Final:
        return arguments[0]
    plain = (list, tuple, dict, set, typing.List, typing.Tuple, typing.Dict)  # noqa: UP006
    abstract = (collections.abc.Sequence, collections.abc.Mapping, typing.Sequence, typing.Mapping)
    if origin in plain + abstract:
        return origin[tuple(Any if a is _OPAQUE else a for a in arguments)]
    return _OPAQUE


def _bound(node: ast.expr, module: _Module) -> Any:
    """A bound such as `Gt(0)` of annotated_types; None for any other mark."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=int() | float() as limit)]):
            match _lookup(module.name, name):
                case _Imported("annotated_types", bound) if bound in _BOUNDS:
                    return getattr(annotated_types, bound)(limit)
    return None


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _union(members: list[Any]) -> Any:
    known = [member for member in members if member is not _OPAQUE]
    only_none = known == [type(None)]
    return _OPAQUE if not known or only_none else Union[tuple(known)]  # noqa: UP007


def _named(name: str, module: _Module) -> Any:
    found = _lookup(module.name, name)
    if isinstance(found, Definition):
        nested = isinstance(found.node, ast.ClassDef) and _is_dataclass(found.node)
        return Annotated[dict, Fields(found.target)] if nested else _OPAQUE
    if isinstance(found, _Imported):
        return _standard(found.module, found.name)
    if isinstance(found, tuple):
        owner, expression = found
        return _evaluate(expression, owner)
    plain = getattr(builtins, name, None)
    return plain if plain in (int, float, str, bool, list, tuple, dict, set) else _OPAQUE


def _standard(module: str, name: str) -> Any:
    found = getattr(_TYPING.get(module), name, _OPAQUE)
    return _OPAQUE if found in _CALLABLES else found


def _lookup(module_name: str, name: str) -> Definition | _Imported | tuple[_Module, ast.expr] | None:
    """What `name` means in a module, imports inside the same package followed."""
    for _ in range(8):
        module = _read(module_name)
        found = module.names.get(name) if module else None
        if module is None or found is None:
            return None
        if isinstance(found, ast.ClassDef | ast.FunctionDef):
            return Definition(module, found)
        if isinstance(found, ast.expr):
            return (module, found)
        if found.module.partition(".")[0] != module.root or found.module == "torch":
            return found  # another package, or one whose file is too long to be worth reading for a name
        module_name, name = found.module, found.name
    return None


@cache
def _read(name: str) -> _Module | None:
    file = _source_file(name)
    if file is None:
        return None
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    return _Module(name, dict(_definitions(tree.body, package)), text.splitlines())


def is_installed(name: str) -> bool:
    """Whether there is a package of this name, or the root of a dotted one; runs nothing."""
    return _root_spec(name.partition(".")[0]) is not None


def _root_spec(root: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return None


def _source_file(name: str) -> Path | None:
    """The file of a module; only the root package is asked of the import system, which runs nothing."""
    root, *rest = name.split(".")
    spec = _root_spec(root)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    base = Path(spec.origin).parent if spec.submodule_search_locations else None
    if base is None:
        return None if rest else Path(spec.origin)
    stem = base.joinpath(*rest)
    candidates = (stem / "__init__.py", stem.with_suffix(".py")) if rest else (base / "__init__.py",)
    return next((file for file in candidates if file.is_file()), None)


def _definitions(body: list[ast.stmt], package: str) -> typing.Iterator[tuple[str, Any]]:
    for statement in body:
        match statement:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name, statement
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.ImportFrom(names=aliases):
                origin = _origin(statement, package)
                yield from ((a.asname or a.name, _Imported(origin, a.name)) for a in aliases)
            case ast.If(body=inner, orelse=other) | ast.Try(body=inner, orelse=other):
                yield from _definitions(inner + other, package)


def _origin(statement: ast.ImportFrom, package: str) -> str:
    if not statement.level:
        return statement.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - statement.level + 1]
    return ".".join(base + ([statement.module] if statement.module else []))
