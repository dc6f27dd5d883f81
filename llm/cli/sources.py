"""Load config files through Hydra, each checked first; nothing global is set and nothing is written."""

from collections.abc import Sequence
from pathlib import Path

import hydra.conf  # noqa: F401  registers what Hydra itself composes
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
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
        if file.is_file():
            check_yaml(file)
        return super().load_config(config_path)


def config_loader(folders: Sequence[Path]) -> ConfigLoaderImpl:
    """Hydra's loader over `folders`; the first that has a file wins."""
    Plugins.instance()
    SourcesRegistry.instance().register(CheckedSource)
    search_path = ConfigSearchPathImpl()
    search_path.append("hydra", "pkg://hydra.conf")
    for folder in folders:
        search_path.append("llm", f"checked://{folder}")
    search_path.append("schema", "structured://")
    return ConfigLoaderImpl(search_path)
