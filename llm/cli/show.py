"""Print what a command line composes to, and where each choice comes from, without running anything."""

from collections.abc import Sequence
from typing import Any

import yaml

from llm.cli import catalog
from llm.cli.compose import compose
from llm.cli.layers import choice_file
from llm.cli.overrides import Words
from llm.config.words import nearest
from llm.errors import ConfigError


def config(verb: str, argv: Sequence[str], words: Words) -> str:
    """The composed, checked config as YAML, or one node of it; interpolations are resolved.

    Raises:
        ConfigError: the config is wrong, or there is no such node.
    """
    if words.flags["cfg"] != "job":
        raise ConfigError(
            f"--cfg {words.flags['cfg']}: only --cfg job is there; Hydra's own settings have no effect."
        )
    composed = compose(verb, argv).config
    if "package" not in words.flags:
        return _yaml(composed)
    path = words.flags["package"]
    return f"# @package {path}\n{_yaml(_node(composed, path))}"


def _node(node: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            guess = nearest(part, node if isinstance(node, dict) else ())
            raise ConfigError(
                f"--package {path}: there is no {part}.{f' Did you mean {guess}?' if guess else ''}"
            )
        node = node[part]
    return node


def _yaml(node: Any) -> str:
    return (
        yaml.safe_dump(node, sort_keys=False, allow_unicode=True, width=1000)
        .removesuffix("\n...\n")
        .rstrip("\n")
    )


def info(verb: str, argv: Sequence[str], words: Words) -> str:
    """The folders of config files and, for each choice, its file."""
    folders = catalog.config_folders(words.flags.get("config_dir"))
    lines = [f"Config folders, the first wins: {', '.join(map(str, folders))}"]
    for group, chosen in sorted(compose(verb, argv).choices.items()):
        for name in chosen if isinstance(chosen, list) else [chosen]:
            file = choice_file(folders, group, name) if name else None
            lines.append(f"{group:<12}{name or '-':<16}{file or ''}".rstrip())
    return "\n".join(lines)
