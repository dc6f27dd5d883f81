"""What `--help` shows: what a command does, what can be chosen, and every key with its type, default and meaning."""

import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from llm.cli import catalog
from llm.cli.about import ABOUT
from llm.cli.layers import Folders, Layer, merged, names_of
from llm.cli.overrides import Words
from llm.config import SCHEMAS, known_keys
from llm.config.check import is_leaf, members, quoted
from llm.config.static import COMPUTED, REQUIRED, Field
from llm.config.words import REFUSED

WIDTH = 100
_COLUMNS = (2, 25, 38, 51)  # where key, type, default and meaning begin
_LONGEST_DEFAULT = 40  # characters
_FLAGS = {
    "-h, --help": "this text; with a choice beside it, such as model=gpt_small, that choice's keys",
    "-c, --cfg job": "print the composed config and stop; -p <node> prints one node of it",
    "--info": "print where each choice comes from and stop",
    "-m, --multirun": "a sweep: a run for each of several values, such as optimizer.lr=1e-3,3e-4; llm train alone",
    "--config-dir <folder>": "a folder of your own groups and choices, laid out as conf/ is",
}
_WRITING = (
    "A text is taken as typed, whatever it holds; [a, b] is a list; nothing after the equals sign means null. "
    "Quote for your shell what it would take apart."
)


def overview(verbs: Sequence[str]) -> str:
    """What `llm` alone shows."""
    rows = {f"llm {verb}": ABOUT[verb].summary for verb in verbs}
    rows["llm completion"] = "print a completion script for bash, zsh or fish"
    return "\n".join(
        [
            "Build your own language model, config first: from raw text to a model that writes.",
            "",
            *_table(rows, 18),
            "",
            "Begin with  llm train experiment=demo",
            "llm <command> --help tells the rest.",
        ]
    )


def page(verb: str, words: Words) -> str:
    """The help page of a command, for the choices in `words`."""
    folders = catalog.config_folders(words.flags.get("config_dir"))
    about, groups = ABOUT[verb], _groups(verb, folders)
    takes = f"llm {verb}{' [group=choice ...]' if groups else ''} [key=value ...]"
    same = f"      the same as python {verb}.py" if verb in ("train", "evaluate") else ""
    sections = [
        [f"{takes}{same}", "", *_wrapped("", about.text, 0)],
        ["Examples", *(line for row in about.examples.items() for line in _example(verb, *row))],
        groups,
        *_keys(verb, folders, words.values),
        *(_keys("sweep", folders, {}) if verb == "train" else ()),
        ["Flags", *_table(_FLAGS, 26)],
        _wrapped("", _WRITING, 0),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section)


def _example(verb: str, line: str, remark: str) -> list[str]:
    return [f"  # {remark}", f"  llm {verb} {line}"]


def _wrapped(left: str, right: str, column: int) -> list[str]:
    """`right` in a column of its own behind `left`, which may be longer than the column allows."""
    start = f"{left}  ".ljust(column) if left else ""
    lines = textwrap.wrap(right, WIDTH, initial_indent=start, subsequent_indent=" " * column)
    return lines or [left.rstrip()]


def _table(rows: Mapping[str, str], column: int) -> list[str]:
    return [line for left, right in rows.items() for line in _wrapped(f"  {left}", right, column)]


def _groups(verb: str, folders: Folders) -> list[str]:
    rows = {}
    for group, names in catalog.choices_of_verb(verb, folders).items():
        default = catalog.default_groups(verb)[group]
        others = [name for name in names if name != default]
        rows[group] = " ".join(([f"{default}*"] if default else []) + others)
    return ["Groups (* is the default)", *_table(rows, 14)] if rows else []


def _keys(verb: str, folders: Folders, given: Mapping[str, str]) -> Iterator[list[str]]:
    """The root's keys, then each node's with the choice that they are of."""
    root = get_type_hints(SCHEMAS[verb], include_extras=True)
    chosen = catalog.choices(verb, folders, given)
    files = catalog.layers_of(verb, folders, chosen)
    # Of the root's own file the schema says more.
    content, comments = merged(files), _comments(f for f in files if f.file.parent != catalog.conf_folder())
    nodes = [name for name, annotation in root.items() if _is_node(annotation)]
    known = known_keys(SCHEMAS[verb], content)
    if rows := _rows({name: known[name] for name in root if name not in nodes}, content, comments, ""):
        yield ["Keys", *rows]
    for node in nodes:
        inside = {key: entry for key, entry in known.items() if key.startswith(f"{node}.")}
        if rows := _rows(inside, content, comments, f"{node}."):
            choice = ",".join(names_of(chosen.get(node)))
            of = f" of {node}={choice}" if choice else " with -m" if verb == "sweep" else ""
            yield [f"{node}.<key>{of}", *rows]


def _is_node(annotation: Any) -> bool:
    bare = [get_args(m)[0] if get_origin(m) is Annotated else m for m in members(annotation)]
    return any(kind == dict[str, Any] or hasattr(kind, "__dataclass_fields__") for kind in bare)


def _rows(
    fields: Mapping[str, Field], content: Mapping[str, Any], comments: Mapping[str, str], prefix: str
) -> list[str]:
    lines: list[str] = []
    for key, entry in fields.items():
        leaf = key.rpartition(".")[2]
        if leaf.startswith("_") or key in REFUSED or is_leaf(entry.annotation) or _holds_leaf(content, key):
            continue
        doc = comments.get(key, entry.doc)
        kind = short_type(entry.annotation)
        if len(kind) > _COLUMNS[2] - _COLUMNS[1] - 2 and _is_choice(entry.annotation):
            kind, doc = "choice", "; ".join(filter(None, [_either(kind.split("|")), doc]))
        lines += _row(key.removeprefix(prefix), kind, _default(content, key, entry.default), doc)
    return lines


def _holds_leaf(content: Mapping[str, Any], key: str) -> bool:
    value = _at(content, key, None)
    return isinstance(value, dict) and "_target_" in value


def _row(key: str, kind: str, default: str, doc: str) -> list[str]:
    left = " " * _COLUMNS[0]
    for text, column in zip((key, kind, default), _COLUMNS[1:], strict=True):
        left = f"{left}{text}  ".ljust(column)
    return _wrapped(left.rstrip(), doc, _COLUMNS[3])


def _is_choice(annotation: Any) -> bool:
    return all(kind is type(None) or get_origin(kind) is Literal for kind in members(annotation))


def _either(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _at(content: Mapping[str, Any], key: str, default: Any) -> Any:
    node: Any = content
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return default
        node = node[part]
    return node


def _default(content: Mapping[str, Any], key: str, default: Any) -> str:
    value = _at(content, key, default)
    if value is REQUIRED or value == "???":
        return "needed"
    return "" if value is COMPUTED else quoted(value, _LONGEST_DEFAULT)


def short_type(annotation: Any) -> str:
    """A type in few letters: `int`, `layer|rms`, `[text]`, `float|null`."""
    kinds = members(annotation)
    if len(kinds) > 1:
        return "|".join(dict.fromkeys(short_type(kind) for kind in kinds))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return short_type(arguments[0])
    if origin is Literal:
        return "|".join(str(choice) for choice in arguments)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"[{', '.join(short_type(argument) for argument in arguments if argument is not ...)}]"
    names = {str: "text", type(None): "null", Any: "any"}
    return names.get(annotation, "{...}") if origin or annotation in names else annotation.__name__


_LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?:.*?[ \t]# (?P<behind>.*))?")


def _comments(files: Iterable[Layer]) -> dict[str, str]:
    """What the files say of each dotted key, behind it or in the line above; what heads a file is the file's."""
    found: dict[str, str] = {}
    for layer in files:
        found |= _comments_in(layer.file.read_text(encoding="utf-8"), layer.package)
    return found


def _comments_in(text: str, package: str) -> dict[str, str]:
    found: dict[str, str] = {}
    above, inside = "", [(-1, package)]  # the nodes around a line, each with its indent
    for line in itertools.dropwhile(lambda line: line.startswith("#"), text.splitlines()):
        if key := _LINE.match(line):
            inside = [(indent, node) for indent, node in inside if indent < len(key["indent"])]
            name = ".".join(filter(None, (inside[-1][1], key["key"])))
            inside.append((len(key["indent"]), name))
            if comment := (key["behind"] or above).strip():
                found[name] = comment
        above = line.strip().removeprefix("# ") if line.lstrip().startswith("# ") else ""
    return found
