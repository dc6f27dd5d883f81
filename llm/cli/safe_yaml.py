"""Read config files, but none that could do harm: a cap on size, depth and what aliases expand to, no Python tags."""

from pathlib import Path
from typing import Any

import yaml

from llm.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000
MAX_DEPTH = 20

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a config file; ConfigError where `check_yaml` refuses it."""
    check_yaml(path)
    content = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    return content if isinstance(content, dict) else {}


def check_yaml(path: Path) -> None:
    """Raise ConfigError where a config file is too long, expands too far, or asks for Python objects."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: a config file may have {MAX_BYTES // 1024} KiB at most.")
        _Counter(path).count(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: this is not UTF-8 text ({error.reason} at byte {error.start})."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: this is not valid YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise ConfigError(f"{path}: this can't be read: {error.strerror}.") from error


class _Counter:
    """Counts a file's nodes with every alias expanded, without expanding any."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open: list[tuple[str | None, int]] = [(None, 0)]
        self.sizes: dict[str, int] = {}

    def count(self, text: str) -> None:
        """Go through the file; ConfigError as soon as it is too large, too deep, or not plain."""
        for event in yaml.parse(text, Loader=_LOADER):
            self._refuse_tags(event)
            if isinstance(event, yaml.CollectionStartEvent):
                self.open.append((event.anchor, 0))
            elif isinstance(event, yaml.CollectionEndEvent):
                self._add(*self.open.pop())
            elif isinstance(event, yaml.ScalarEvent):
                self._add(event.anchor, 0)
            elif isinstance(event, yaml.AliasEvent):
                self._add(None, self.sizes.get(str(event.anchor), MAX_NODES) - 1)

    def _add(self, anchor: str | None, inside: int) -> None:
        size = inside + 1
        if anchor is not None:
            self.sizes[anchor] = size
        parent, so_far = self.open.pop()
        self.open.append((parent, so_far + size))
        if so_far + size > MAX_NODES or len(self.open) > MAX_DEPTH:
            self._refuse(f"with its aliases it has more than {MAX_NODES} values or {MAX_DEPTH} levels")

    def _refuse_tags(self, event: yaml.Event) -> None:
        tag = getattr(event, "tag", None)
        if tag and (not str(tag).startswith("tag:yaml.org,2002:") or "python" in str(tag)):
            self._refuse(f"the tag {tag} is refused; write plain values")

    def _refuse(self, why: str) -> None:
        raise ConfigError(f"{self.path}: {why}.")
