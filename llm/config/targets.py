"""Which classes a config may name by `_target_`, decided from the source text before anything is imported."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llm.config.static import Definition, find, is_installed
from llm.errors import ConfigError

_HYDRAS = ("_partial_", "_args_", "_recursive_", "_convert_")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+", re.ASCII)
_OURS = ("llm.adapter", "llm.data", "llm.evaluation", "llm.objective", "llm.tokenizer", "llm.train")
# Modules of ours whose functions may be named too.
_OUR_FUNCTIONS = ("llm.data.collators.joined", "llm.train.optimizers", "llm.train.schedules")
_LIGHTNING = tuple(
    f"lightning.pytorch.{part}"
    for part in ("accelerators", "callbacks", "loggers", "plugins", "profilers", "strategies")
)
_TORCH = ("torch.optim", "torch.optim.lr_scheduler")
# Never a package of the user's own, and not for a config to reach further into.
_KNOWN = ("llm", "torch", "lightning", "hydra", "omegaconf")


def refusal(target: object, packages: Sequence[str] = ()) -> str | None:
    """Why a config may not name `target`, or None where it may; `packages` are those that the user opened.

    Runs and imports nothing.
    """
    if not isinstance(target, str) or not _NAME.fullmatch(target):
        return "it is not a public dotted name like package.module.Class"
    module = target.rpartition(".")[0]
    if not _is_open(module, packages):
        root = target.partition(".")[0]
        own = (
            ""
            if _is_standard(root) or root in _KNOWN
            else f"; for a package of your own add packages=[{root}]"
        )
        return (
            "only classes of llm, torch.optim and Lightning's strategies, callbacks, loggers, plugins and profilers "
            f"may be named{own}"
        )
    found = find(target)
    if found is None:
        return f"there is no class of that name defined in {target.partition('.')[0]}"
    if not (found.is_class or found.module.name in _OUR_FUNCTIONS):
        return "it is a function; name a class that takes the same keys"
    return None if _stays_inside(found, packages) else f"it leads outside, to {found.target}"


def _is_open(module: str, packages: Sequence[str]) -> bool:
    if module in _LIGHTNING or module in _TORCH:
        return True
    if _within(module, "llm"):
        return any(_within(module, ours) for ours in _OURS)
    return any(_within(module, package) and not _is_standard(package) for package in packages)


def _stays_inside(found: Definition, packages: Sequence[str]) -> bool:
    origin = found.module.name
    return any(_within(origin, root) for root in (*_OURS, "lightning", "torch.optim", *packages))


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _is_standard(package: str) -> bool:
    """Python's own modules are never a package of the user's own."""
    return package.partition(".")[0] in sys.stdlib_module_names or package == ""


def check_targets(config: dict[str, Any]) -> None:
    """Raise ConfigError unless every `_target_` in the config, however deeply nested, may be named.

    `config["packages"]`, where present, lists the packages that the user opened; each must be there.
    """
    packages = config["packages"] if isinstance(config.get("packages"), list) else []
    for package in packages:
        check_package(package)
    for key, value in _special_keys(config, ""):
        reason = (
            refusal(value, packages)
            if key.endswith("_target_")
            else "of Hydra's own keys only _target_ is read"
        )
        if reason is not None:
            raise ConfigError(f"{key}={value}: this may not be named: {reason}.")


def check_package(package: object) -> None:
    """Raise ConfigError unless `package` is one of the user's own that can be found. Runs and imports nothing."""
    name = str(package)
    if _is_standard(name):
        raise ConfigError(f"packages=[{name}]: this is part of Python, not a package of your own.")
    if not is_installed(name):
        raise ConfigError(
            f"packages=[{name}]: there is no such package. Install it, or put the folder that holds it on PYTHONPATH."
        )


def _special_keys(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            here = f"{path}.{key}" if path else str(key)
            if key == "_target_" or key in _HYDRAS:
                yield here, value
            yield from _special_keys(value, here)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _special_keys(value, f"{path}[{index}]")


def resolve(target: str, packages: Sequence[str] = ()) -> Callable[..., Any]:
    """Import the class, or the function of ours, that an allowed `target` names; ConfigError where it isn't allowed or can't be imported."""
    reason = refusal(target, packages)
    if reason is not None:
        raise ConfigError(f"_target_={target}: this may not be named: {reason}.")
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"_target_={target}: it can't be imported: {error}.") from error
