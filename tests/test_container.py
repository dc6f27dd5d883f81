"""The files for containers agree with the program: what they copy exists, what they start composes, nobody is root."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from llm.cli.compose import compose

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]["llm"]


def test_what_is_copied_exists_and_is_not_ignored():
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for name in line.split()
    }
    assert copied >= {"llm", "conf", "pyproject.toml"}
    assert all((ROOT / name).exists() for name in copied)
    let_in = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert copied == set(let_in)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_no_page_has_more_copied_into_the_image(page):
    # What stands in .dockerignore lets nothing else in, and the build would fail.
    assert not re.search(r"^COPY ", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_command_composes_and_the_server_is_not_roots():
    entry = json.loads(re.search(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.MULTILINE)[1])
    assert entry[:2] == ["llm", "serve"]
    config = compose("serve", [*entry[2:], "run=/model/mine"]).config
    assert (config["host"], config["port"]) == ("0.0.0.0", 8000)
    assert f"127.0.0.1:{config['port']}/health" in DOCKERFILE
    assert re.search(r"^USER (?!root|0)\w+$", DOCKERFILE, re.MULTILINE)
    assert "LLM_API_KEY" in COMPOSE["environment"]
    assert COMPOSE["ports"] == ["127.0.0.1:8000:8000"]
    assert COMPOSE["volumes"][0].endswith(":ro")


@pytest.mark.parametrize("page", ["docs/serving.md", "Dockerfile"])
def test_the_commands_that_are_shown_compose(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [line.lstrip("# ") for line in text.splitlines() if "docker run" in line]
    assert lines
    for line in lines:
        words = shlex.split(line)
        compose("serve", words[words.index("llm") + 1 :])


def test_torchs_version_is_pinned_where_the_image_reads_it():
    assert re.search(r"^torch==[\d.]+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_where_packages_come_from_is_an_argument_that_is_used_and_told_of():
    arguments = re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE)
    assert sorted(arguments) == ["PIP_INDEX_URL", "TORCH_INDEX_URL"]  # pip itself reads the first
    assert '--index-url "$TORCH_INDEX_URL"' in DOCKERFILE
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--build-arg (\w+)=", page)) == set(arguments)
