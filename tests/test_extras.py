"""Errors about what isn't installed name an extra that there is, in one place's words."""

import ast
import tomllib
from pathlib import Path

from llm.errors import ConfigError, install_command, missing_package

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SOURCES = sorted((ROOT / "llm").rglob("*.py"))


def extras_named() -> set[str]:
    """The extras that the sources name as constants to what writes such an error."""
    found = set()
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name("missing_package"), args=[_, _, ast.Constant(extra), *_]):
                    found.add(extra)
                case ast.Call(func=ast.Name("install_command"), args=[ast.Constant(extra)]):
                    found.add(extra)
    return found


def test_a_missing_package_is_told() -> None:
    error = missing_package("eval=lm_eval", "lm_eval", "eval")
    assert isinstance(error, ConfigError)
    assert str(error) == "eval=lm_eval needs the package lm_eval: pip install -e '.[eval]'."
    other = str(missing_package("logger=wandb", "wandb", "wandb", ", or leave it out"))
    assert other.endswith("pip install -e '.[wandb]', or leave it out.")


def test_the_extras_that_errors_name_exist() -> None:
    assert {"serve", "huggingface", "corpora", "deepspeed"} <= extras_named() <= set(EXTRAS)


def test_one_place_says_how_an_extra_is_installed() -> None:
    command = install_command("").partition("[")[0]
    assert [file.name for file in SOURCES if command in file.read_text(encoding="utf-8")] == ["errors.py"]
