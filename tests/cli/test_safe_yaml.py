"""Config files that could do harm are refused before they are expanded."""

import time
from pathlib import Path

import pytest

from llm.cli.compose import compose
from llm.cli.safe_yaml import MAX_BYTES, check_yaml, read_yaml
from llm.errors import ConfigError


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("levels", "width"), [(10, 10), (40, 2), (5, 30), (16, 3)])
def test_alias_bombs_are_refused_at_once(tmp_path: Path, levels: int, width: int) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError, match="aliases"):
        check_yaml(write(tmp_path, bomb(levels, width)))
    assert time.process_time() - start < 1


def test_an_alias_bomb_in_an_experiment_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "bomb.yaml").write_text("# @package _global_\n" + bomb(30, 9))
    start = time.process_time()
    with pytest.raises(ConfigError, match="aliases"):
        compose("train", ["--config-dir", str(tmp_path), "experiment=bomb"])
    assert time.process_time() - start < 5


def test_a_few_aliases_are_fine(tmp_path: Path) -> None:
    path = write(tmp_path, "a: &a {x: 1}\nb: *a\nc: [*a, *a]\n")
    assert read_yaml(path) == {"a": {"x": 1}, "b": {"x": 1}, "c": [{"x": 1}, {"x": 1}]}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: !!python/object/apply:os.system [ls]", "tag"),
        ("a: !!python/name:os.system", "tag"),
        ("!!python/tuple [1]", "tag"),
        ("a: !custom 1", "tag"),
        ("a: !<tag:yaml.org,2002:python/object/new:os.system> 1", "tag"),
        ("a: &a [*a]", "aliases"),
        ("a: *nowhere", "not valid YAML|aliases"),
        ("[" * 50 + "]" * 50, "levels"),
        ("a: [", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
        (b"a: \xff\xfe", "not UTF-8"),
        (b"a: \x00", "not valid YAML"),
        ("a: " + "x" * MAX_BYTES, "KiB"),
    ],
)
def test_what_is_no_plain_config_is_refused(tmp_path: Path, text: str | bytes, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        check_yaml(write(tmp_path, text))


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        check_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["", "# nothing\n", "a: !!str 5\n", "a: !!null\n", "- 1\n"])
def test_plain_files_pass(tmp_path: Path, text: str) -> None:
    check_yaml(write(tmp_path, text))
