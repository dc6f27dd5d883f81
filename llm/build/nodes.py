"""Nodes of a config: what each names by `_target_`, called with its other keys."""

from typing import Any, get_args, get_type_hints

from llm.config import resolve

Config = dict[str, Any]


def settings(node: Config) -> Config:
    """The keys of a node that names its class by `_target_`, without that name."""
    return {key: value for key, value in node.items() if key != "_target_"}


def instantiate(node: Config, config: Config, **arguments: Any) -> Any:
    """Call what `node` names with its keys and `arguments`; nothing outside the allowlist is ever called."""
    return resolve(node["_target_"], config["packages"])(**settings(node), **arguments)


def collator_class(config: Config) -> Any:
    """The class of the task's collator, or the function of ours that makes one."""
    return resolve(config["task"]["collator"]["_target_"], config["packages"])


def collator_classes(config: Config) -> tuple[Any, ...]:
    """The class of the task's collator, or those that a function of ours makes one of."""
    make = collator_class(config)
    return (make,) if isinstance(make, type) else get_args(get_type_hints(make)["return"])
