"""Where config files are found, and what keeps a bad one from doing harm: a cap on size and aliases, no Python tags."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import hydra.conf  # noqa: F401  registers what Hydra itself composes
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

import llm
from llm.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_ALIASES = 50
MAX_DEPTH = 20


@cache
def conf_folder() -> Path:
    """Our own conf/: beside the package in a wheel, in the root of a checkout."""
    package = Path(llm.__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def check_yaml(path: Path) -> None:
    """Raise ConfigError where a config file is too long, expands too far, or asks for Python objects."""
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path}: a config file may have {MAX_BYTES // 1024} KiB at most.")
    try:
        _check_events(path, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: this is not UTF-8 text ({error.reason} at byte {error.start})."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: this is not valid YAML: {_one_line(error)}") from error


def _check_events(path: Path, text: str) -> None:
    aliases = depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        tag = getattr(event, "tag", None)
        if (tag and not str(tag).startswith("tag:yaml.org,2002:")) or (tag and "python/" in str(tag)):
            raise ConfigError(f"{path}: the tag {tag} is refused; write plain values.")
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if aliases > MAX_ALIASES or depth > MAX_DEPTH:
            what = (
                f"more than {MAX_ALIASES} aliases"
                if aliases > MAX_ALIASES
                else f"more than {MAX_DEPTH} levels"
            )
            raise ConfigError(f"{path}: {what} in one config file are refused.")


def _one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())


class CheckedSource(FileConfigSource):
    """A folder of config files, each checked before it is loaded."""

    @staticmethod
    def scheme() -> str:
        """The prefix of a search path that is read by this class."""
        return "checked"

    def load_config(self, config_path: str) -> ConfigResult:
        """Load one file as Hydra does, after the check."""
        file = Path(self.path) / self._normalize_file_name(config_path)
        if file.is_file():
            check_yaml(file)
        return super().load_config(config_path)


def config_loader(folders: Sequence[Path]) -> ConfigLoaderImpl:
    """Hydra's loader over `folders`, the first that has a file wins; it writes nothing and sets nothing global."""
    Plugins.instance()
    SourcesRegistry.instance().register(CheckedSource)
    search_path = ConfigSearchPathImpl()
    search_path.append("hydra", "pkg://hydra.conf")
    for folder in folders:
        search_path.append("llm", f"checked://{folder}")
    search_path.append("schema", "structured://")
    return ConfigLoaderImpl(search_path)


def group_choices(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Each group (a folder) with its choices (its files), nested ones as `folder/file`, sorted."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for group in (entry for entry in folder.iterdir() if entry.is_dir()):
            names = {path.relative_to(group).with_suffix("").as_posix() for path in group.rglob("*.yaml")}
            found.setdefault(group.name, set()).update(names)
    return {group: sorted(names) for group, names in sorted(found.items()) if names}


@cache
def default_groups(verb: str) -> dict[str, str | list[str] | None]:
    """The groups that a verb's config chooses from, with the choice that it makes itself."""
    content = yaml.safe_load((conf_folder() / f"{verb}.yaml").read_text(encoding="utf-8")) or {}
    groups: dict[str, str | list[str] | None] = {}
    for entry in content.get("defaults", []):
        if isinstance(entry, dict):
            groups |= {
                name.removeprefix("optional ").removeprefix("override "): c for name, c in entry.items()
            }
    return groups
