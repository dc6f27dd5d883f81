"""Load config files through Hydra, each checked first; nothing global is set and nothing is written."""

import copy
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import hydra.conf  # noqa: F401  registers what Hydra itself composes
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.default_element import GroupDefault
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

from llm.cli.safe_yaml import check_yaml


class CheckedSource(FileConfigSource):
    """A folder of config files, each checked before it is loaded."""

    @staticmethod
    def scheme() -> str:
        """The prefix of a search path that is read by this class."""
        return "checked"

    def load_config(self, config_path: str) -> ConfigResult:
        """Load one file as Hydra does, after the check."""
        file = Path(self.path) / self._normalize_file_name(config_path)
        if not file.is_file():
            return super().load_config(config_path)
        about = file.stat()
        # Hydra takes the defaults out of what it gets.
        return copy.deepcopy(_load_once(self.provider, file, about.st_mtime_ns, about.st_size))


@cache
def _load_once(provider: str, file: Path, *_state: int) -> ConfigResult:
    """A file's config, once for each state of the file: the jobs of a sweep share most of theirs."""
    check_yaml(file)
    return FileConfigSource(provider, f"file://{file.parent}").load_config(file.name)


class BareRepository(ConfigRepository):
    """The config files, and Hydra's own settings without what it chooses for its logs, help and launchers.

    Nothing here uses those, and they would take as long to load as all files of ours.
    """

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Load one file, if there is one; a file may still override Hydra's choices."""
        found = super().load_config(config_path)
        if found and config_path == "hydra/config":
            for choice in found.defaults_list or ():
                if isinstance(choice, GroupDefault):
                    choice.value = None
        return found


def config_loader(folders: Sequence[Path]) -> ConfigLoaderImpl:
    """Hydra's loader over `folders`; the first that has a file wins."""
    Plugins.instance()
    SourcesRegistry.instance().register(CheckedSource)
    search_path = ConfigSearchPathImpl()
    search_path.append("hydra", "pkg://hydra.conf")
    for folder in folders:
        search_path.append("llm", f"checked://{folder}")
    search_path.append("schema", "structured://")
    loader = ConfigLoaderImpl(search_path)
    loader.repository = BareRepository(search_path)
    return loader
