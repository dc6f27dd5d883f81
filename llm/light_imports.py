"""torchmetrics as Lightning needs it: its two base classes, without the metrics, until somebody asks for one.

All of its metrics bring scipy and transformers with them where those are installed: of the six seconds that importing
Lightning then takes on a slow core, four, and 100 of 180 MB (benchmarks/overhead.md).
"""

import importlib
import logging
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

NAME = "torchmetrics"


def import_torchmetrics_lightly() -> None:
    """Let the first import of torchmetrics in this process be a light one; nothing, where it has been imported.

    What asks it for metrics then imports them where it needs them, inside a function.
    """
    if NAME not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds torchmetrics where it is, and gives it another loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != NAME:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(NAME)
        if spec is not None and spec.loader is not None:
            spec.loader = _LightLoader(spec.loader)
        return spec


class _LightLoader(Loader):
    """Fills the package with what Lightning asks of it, and completes it when it is asked for more."""

    def __init__(self, complete: Loader) -> None:
        self.complete = complete

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.complete.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            _fill(module)
        except Exception:  # a release that is built otherwise
            for name in [name for name in sys.modules if name.startswith(f"{NAME}.")]:
                del sys.modules[name]
            self.complete.exec_module(module)
            return
        module.__class__ = _Light


def _fill(module: Any) -> None:
    """Import the base classes, in the order in which the package's own modules need one another."""
    module._logger = logging.getLogger(NAME)
    module.__version__ = importlib.import_module(f"{NAME}.__about__").__version__
    importlib.import_module(f"{NAME}.utilities")
    module.Metric = importlib.import_module(f"{NAME}.metric").Metric
    module.MetricCollection = importlib.import_module(f"{NAME}.collections").MetricCollection


class _Light(ModuleType):
    """The package before it is complete."""

    def __getattr__(self, name: str) -> Any:
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec = self.__spec__
        assert spec is not None
        assert isinstance(spec.loader, _LightLoader)
        try:
            spec.loader.complete.exec_module(self)
        except BaseException:  # so that whoever asks next hears of it too
            self.__class__ = _Light
            raise
        return getattr(self, name)
