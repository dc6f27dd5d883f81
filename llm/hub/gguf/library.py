"""The `gguf` package, which knows the format's names, types and quantisations; it comes with the extra `export`."""

from types import ModuleType
from typing import Any

import numpy as np

from llm.errors import missing_package


def library() -> ModuleType:
    """The package; a ConfigError says how to get it."""
    try:
        import gguf
    except ImportError:
        raise missing_package("GGUF", "gguf", "export") from None
    return gguf


def shortest(value: Any) -> Any:
    """A float as it comes back from a file, which keeps it in float32: the shortest decimal that gives those bits."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
