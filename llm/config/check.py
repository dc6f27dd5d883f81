"""Compare a composed config with its schema: unknown keys, wrong types, wrong choices, each with a way out."""

import copy
import dataclasses
import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from llm.config.schema import Beside, Leaf, Leaves
from llm.config.static import COMPUTED, REQUIRED, Field, Fields, Signature, signature
from llm.config.words import REFUSED, REFUSED_VALUES, nearest

_PLAIN = {
    int: "int",
    float: "float",
    bool: "bool",
    str: "text",
    type(None): "null",
    Any: "anything",
    dict: "keys",
}

LONGEST_SHOWN = 60  # characters of a value in an error


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the key, its value, and what to do."""

    key: str
    value: Any
    message: str

    def __str__(self) -> str:
        return f"{self.key}={shown(self.value)}: {self.message}"


def check(config: dict[str, Any], schema: type) -> list[Problem]:
    """Everything that is wrong with `config`, in the order of its keys; an empty list where nothing is."""
    known = known_keys(schema, config)
    return _check_node(config, schema, "", known)


def known_keys(schema: Any, config: Any, prefix: str = "") -> dict[str, Field]:
    """Every dotted key that `config` may have, with its type; which ones depends on its `_target_`s."""
    found = keys_of(schema, config)
    known: dict[str, Field] = {}
    for name, entry in found.fields.items() if found else ():
        path = f"{prefix}{name}"
        value = config.get(name) if isinstance(config, dict) else None
        known[path] = entry
        known |= known_keys(entry.annotation, value, f"{path}.")
    return known


def find_key(schema: Any, config: Any, key: str) -> Field | None:
    """The dotted key as `config` may have it, or None where it may not; where any key goes, so does this one."""
    entry, names = Field(schema), key.split(".")
    for depth, name in enumerate(names):
        found = keys_of(entry.annotation, config) or Signature()
        if name not in found.fields:
            begins_leaf = holds_any_number(entry.annotation) and names[depth + 1 :] == ["_target_"]
            return Field(str) if begins_leaf else Field() if found.open and name else None
        entry = found.fields[name]
        config = config.get(name) if isinstance(config, dict) else None
    return entry


def keys_of(annotation: Any, value: Any) -> Signature | None:
    """The keys that a node of this type and value may have, or None where it is no node but a plain value."""
    marks, ours = _marks(annotation), _beside(annotation)
    if isinstance(value, dict) and "_target_" in value:
        found = signature(str(value["_target_"])) or Signature(open=True)
        return Signature({"_target_": Field(str), **found.fields, **ours}, found.open)
    for member in members(annotation):
        if dataclasses.is_dataclass(member):
            return _dataclass_keys(member)  # type: ignore[arg-type]
    for mark in marks:
        if isinstance(mark, Fields):
            return signature(mark.target)
        if isinstance(mark, Leaves):
            return Signature({name: Field(mark.leaf) for name in value or ()})
    if Any in members(annotation) and isinstance(value, dict):
        return Signature({name: Field() for name in value}, open=True)
    return Signature(ours) if ours else None


def is_leaf(annotation: Any) -> bool:
    """Whether a key holds a node that names its class."""
    return any(isinstance(mark, Leaf) for mark in _marks(annotation))


def holds_any_number(annotation: Any) -> bool:
    """Whether a key holds leaves by name, none of them included."""
    return any(isinstance(mark, Leaves) for mark in _marks(annotation))


def _beside(annotation: Any) -> dict[str, Field]:
    schemas = [mark.schema for mark in _marks(annotation) if isinstance(mark, Beside)]
    return _dataclass_keys(schemas[0]).fields if schemas else {}


def _marks(annotation: Any) -> list[Any]:
    return [mark for member in members(annotation) for mark in getattr(member, "__metadata__", ())]


@cache
def _dataclass_keys(schema: Any) -> Signature:
    hints = get_type_hints(schema, include_extras=True)
    source = signature(f"{schema.__module__}.{schema.__qualname__}") or Signature()
    fields = {}
    for entry in dataclasses.fields(schema):
        made = entry.default_factory
        default = entry.default if made is dataclasses.MISSING else made()
        doc = source.fields[entry.name].doc if entry.name in source.fields else ""
        fields[entry.name] = Field(hints[entry.name], default, doc)
    return Signature(fields)


def members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the type alone."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _check_node(value: Any, annotation: Any, path: str, known: Mapping[str, Field]) -> list[Problem]:
    found = keys_of(annotation, value)
    if (
        value is None
        and (found is not None or is_leaf(annotation))
        and (type(None) in members(annotation) or annotation is Any)
    ):
        return []
    if found is None:
        return _check_value(value, annotation, path)
    if not isinstance(value, dict):
        return [Problem(path, value, f"this is a group of keys, such as {_example(path, found)}.")]
    problems: list[Problem] = []
    for name, inner in value.items():
        here = f"{path}.{name}" if path else str(name)
        if name in found.fields:
            problems += _check_node(inner, found.fields[name].annotation, here, known)
        elif not found.open:
            problems.append(unknown_key(here, inner, known))
    return problems


def _check_value(value: Any, annotation: Any, path: str) -> list[Problem]:
    if is_leaf(annotation):
        return [Problem(path, value, f"this is chosen as a group: {path}=<choice>.")]
    try:
        # Strict JSON is a config's idea of types: no text for a number, but a whole number for a float, and only lists.
        _adapter(annotation).validate_json(json.dumps(value, default=str), strict=True)
    except PydanticUserError:
        return []  # no type of plain values; the class itself must judge
    except ValidationError:
        reason = REFUSED_VALUES.get(path, {}).get(str(value)) or f"expected {_mismatch(value, annotation)}"
        return [Problem(path, value, f"{reason}.{_hint(value, annotation)}")]
    return []


def _mismatch(value: Any, annotation: Any) -> str:
    """What would fit, and of what kind the value is, unless the kind is right and only its size isn't."""
    wanted, kind = described(annotation), _kind(value)
    return wanted if wanted.split()[0] == kind else f"{wanted}, got {kind}"


def _adapter(annotation: Any) -> TypeAdapter:
    return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))


def _example(path: str, found: Signature) -> str:
    names = [name for name in found.fields if not name.startswith("_")]
    return f"{path}.{names[0]}=" if names else f"{path}.<key>="


def unknown_key(path: str, value: Any, known: Mapping[str, Field]) -> Problem:
    """The problem with a key that isn't there, with the nearest that is, or why it is refused."""
    if path in REFUSED:
        return Problem(path, value, f"this can't be set by hand: {REFUSED[path]}.")
    guess = nearest(path, (name for name in known if not name.rpartition(".")[2].startswith("_")))
    hint = f" Did you mean {guess}?" if guess else ""
    return Problem(path, value, f"there is no key {path}.{hint}")


def _hint(value: Any, annotation: Any) -> str:
    choices = choices_of(annotation)
    guess = nearest(str(value), choices) if choices else None
    if guess:
        return f" Did you mean {guess}?"
    if isinstance(value, float) and value.is_integer() and int in members(annotation):
        return f" Write {int(value)}."
    return ""


def choices_of(annotation: Any) -> list[str]:
    """The words that a key takes, for a key that takes words of a fixed list."""
    literals = [get_args(member) for member in members(annotation) if get_origin(member) is Literal]
    return [str(choice) for group in literals for choice in group]


def described(annotation: Any) -> str:
    """A type in words: `int or null`, `one of layer, rms`, `a list of text`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(described(member) for member in get_args(annotation))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return described(arguments[0]) + "".join(_bound(mark) for mark in arguments[1:])
    if origin is Literal:
        words = ", ".join(str(choice) for choice in arguments)
        return words if len(arguments) == 1 else f"one of {words}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list of {described(arguments[0])}" if arguments else "a list"
    return _PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _bound(mark: Any) -> str:
    words = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}
    return "".join(f" {words[name]} {getattr(mark, name)}" for name in words if hasattr(mark, name))


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text" if value else "nothing"
    return _PLAIN.get(type(value), type(value).__name__) if value is not None else "null"


def shown(value: Any, longest: int = LONGEST_SHOWN) -> str:
    """A value as one would type it after the equals sign, in at most `longest` characters."""
    if isinstance(value, list | tuple):
        text = f"[{', '.join(quoted(item) for item in value)}]"
    else:
        text = (
            str(value)
            if isinstance(value, str | float)
            else json.dumps(value, ensure_ascii=False, default=str)
        )
    text = text.replace("\n", "\\n")
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def quoted(value: Any, longest: int = LONGEST_SHOWN) -> str:
    """The same as an item of a list: in quotes where a comma or a blank at an end belongs to it."""
    is_bare = not isinstance(value, str) or (value.strip() == value != "" and "," not in value)
    return shown(value, longest) if is_bare else json.dumps(value, ensure_ascii=False)


def filled(value: Any, annotation: Any) -> Any:
    """A checked config with the defaults of the keys that it lacks, in the schema's order."""
    found = keys_of(annotation, value)
    if not isinstance(value, dict) or found is None:
        return value
    defaults = {name: entry.default for name, entry in found.fields.items() if name not in value}
    if "_target_" in value:
        defaults = {name: d for name, d in defaults.items() if name in _beside(annotation)}
    kept = {
        name: default
        for name, default in defaults.items()
        if default is not REQUIRED and default is not COMPUTED
    }
    merged = value | {name: _plain(default) for name, default in kept.items()}
    inner = {name: found.fields[name].annotation if name in found.fields else Any for name in merged}
    order = [
        *(name for name in found.fields if name in merged),
        *(n for n in merged if n not in found.fields),
    ]
    return {name: filled(merged[name], inner[name]) for name in order}


def _plain(default: Any) -> Any:
    """A copy of a default, of plain containers."""
    is_node = dataclasses.is_dataclass(default) and not isinstance(default, type)
    plain = dataclasses.asdict(default) if is_node else copy.deepcopy(default)
    return list(plain) if isinstance(plain, tuple) else plain
