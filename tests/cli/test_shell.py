"""The commands as a person types them: through a real shell, from another folder."""

import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
Shell = Callable[[str], "subprocess.CompletedProcess[str]"]

KEYS = ("runs_dir", "shards_dir", "init_from", "resume", "name", "samples.prompts", "data.paths", "data.text")
NASTY = [
    "a b",
    " edges ",
    "a,b",
    "a=b=c",
    "a:b",
    "(a, b) = {c: d}",
    "~tilde",
    "~",
    "${seed}",
    "\\${x} $HOME",
    "it's",
    "\"double\" 'single'",
    "ünï – 日本語 🙂",
    "null",
    "1e-3",
    "???",
    "--flag",
    "# not a comment",
    "!!python/object:os.system",
    "**/*.txt",
    "{",
    "a]",
    "two\nlines",
    "`ls`; $(ls) | &",
]


@pytest.mark.parametrize("start", range(0, len(NASTY), len(KEYS)))
def test_nasty_texts_arrive_as_typed(shell: Shell, start: int) -> None:
    texts = dict(zip(KEYS, NASTY[start:], strict=False))
    words = " ".join(shlex.quote(f"{key}={text}") for key, text in texts.items())
    done = shell(f"train data=jsonl {words} --cfg job")
    assert done.returncode == 0, done.stderr
    given = yaml.safe_load(done.stdout)
    flat = given | {f"{node}.{key}": v for node in ("data", "samples") for key, v in given[node].items()}
    flat["samples.prompts"] = flat["samples.prompts"][0]
    assert {key: flat[key] for key in texts} == texts


def test_a_prompt_and_a_list_through_the_shell(shell: Shell) -> None:
    done = shell("""llm generate run='my runs/a=b' prompt="def main():" top_k= -c job""")
    assert yaml.safe_load(done.stdout)["prompt"] == "def main():"
    assert yaml.safe_load(done.stdout)["run"] == "my runs/a=b"
    done = shell("evaluate 'run=[runs/a b, runs/c]' data=text 'data.paths=[x/**/*.txt]' -c job -p data.paths")
    assert yaml.safe_load(done.stdout) == ["x/**/*.txt"]


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("train trainer.max_step=5", "trainer.max_steps"),
        ("train --max_steps 5", "trainer.max_steps=5"),
        ("evaluate", "run"),
        ("llm train model=gpt_mediun", "gpt_medium"),
        ("llm trian", "llm train"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(shell: Shell, line: str, part: str, tmp_path: Path) -> None:
    done = shell(line)
    assert done.returncode == 2
    assert done.stdout == ""
    assert part in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.parametrize(
    "line", ["llm", "train --help", "evaluate -h", "llm generate --help", "llm prepare --help"]
)
def test_help_needs_neither_torch_nor_hydra(shell: Shell, line: str) -> None:
    heavy = ("torch", "lightning", "hydra", "omegaconf", "numpy")
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in heavy)
    done = shell(
        f"mkdir -p ../block && echo 'import sys; {blocked}' > ../block/sitecustomize.py && "
        f"export PYTHONPATH=$PWD/../block:$PYTHONPATH && {line}"
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 300


def test_a_config_error_needs_no_torch(shell: Shell) -> None:
    done = shell(
        "mkdir -p ../block && echo \"import sys; sys.modules['torch'] = None\" > ../block/sitecustomize.py && "
        "export PYTHONPATH=$PWD/../block:$PYTHONPATH && train optimizer.lr=fast"
    )
    assert (done.returncode, "expected float" in done.stderr) == (2, True)


def test_a_pager_that_closes_early_is_no_failure(shell: Shell) -> None:
    done = shell("set -o pipefail; llm train --help | head -1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("llm train")


def test_bash_completes_commands_groups_and_keys(shell: Shell) -> None:
    done = shell("""
        source <(llm completion bash)
        complete_line() { COMP_LINE="$1"; COMP_POINT=${#1}; COMP_CWORD=$2; read -ra COMP_WORDS <<< "$1"; _llm; echo "${COMPREPLY[*]}"; }
        complete_line "llm tr" 1
        complete_line "llm train model=gpt_s" 4
        complete_line "llm train optimizer.l" 2
        complete_line "llm train data.pat" 2
        complete_line "llm generate top" 2
        complete_line "llm completion z" 2
    """)
    assert done.stdout.splitlines() == [
        "train",
        "gpt_small",
        "optimizer.lr=",
        "data.path= data.paths=",
        "top_k= top_p=",
        "zsh",
    ]


def test_an_installed_package_brings_its_conf(shell: Shell, tmp_path: Path) -> None:
    site, ignore = tmp_path / "site", shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "llm", site / "llm", ignore=ignore)
    shutil.copytree(ROOT / "conf", site / "llm" / "conf", ignore=ignore)
    done = shell(f"export PYTHONPATH={shlex.quote(str(site))}; llm train --info")
    assert done.returncode == 0, done.stderr
    assert str(site / "llm" / "conf" / "model" / "nano.yaml") in done.stdout
    assert str(ROOT) not in done.stdout
