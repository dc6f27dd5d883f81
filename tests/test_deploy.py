"""The files that deploy the server say what the server takes: its keys, its port, its route of health, its time to stop."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from llm.cli.compose import compose
from llm.jobs.serve import DRAIN_SECONDS, KEY_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PORT = int(re.search(r"EXPOSE (\d+)", DOCKERFILE)[1])
ENTRYPOINT = json.loads(re.search(r"ENTRYPOINT (\[.*\])", DOCKERFILE)[1])


def documents(name):
    return [document for document in yaml.safe_load_all((ROOT / "deploy" / name).read_text()) if document]


def pod(name):
    """The template that the first document of a Kubernetes or Knative file makes containers of."""
    return documents(name)[0]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def task():
    return json.loads((ROOT / "deploy/ecs-task.json").read_text())["containerDefinitions"][0]


def arguments():
    """Each file's keys of `llm serve`."""
    of_image = ENTRYPOINT[2:]
    task = json.loads((ROOT / "deploy/ecs-task.json").read_text())["containerDefinitions"][0]
    yield [*of_image, *pod("kubernetes.yaml")["containers"][0]["args"]]
    yield [*of_image, *pod("cloud-run.yaml")["containers"][0]["args"]]
    yield [*of_image, *task["command"]]
    yield of_image + [
        re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word)
        for word in yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["llm"]["command"]
    ]
    line = re.search(r"^ExecStart=(.*)$", (ROOT / "deploy/llm.service").read_text(), re.MULTILINE)[1]
    program, verb, *words = shlex.split(line)
    assert (Path(program).name, verb) == ("llm", "serve")
    yield words


@pytest.mark.parametrize("words", arguments(), ids=["kubernetes", "cloud run", "ecs", "compose", "systemd"])
def test_the_words_are_keys_of_serve(words):
    config = compose("serve", words).config
    assert config["port"] == PORT
    assert config["run"].endswith("/mine")


def test_ports_health_and_the_key():
    container = pod("kubernetes.yaml")["containers"][0]
    assert container["ports"] == [{"name": "http", "containerPort": PORT}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}
    assert documents("kubernetes.yaml")[1]["spec"]["ports"][0]["targetPort"] == "http"
    cloud = pod("cloud-run.yaml")["containers"][0]
    assert cloud["ports"] == [{"containerPort": PORT}]
    assert cloud["startupProbe"]["httpGet"] == {"path": "/health", "port": PORT}
    for variables in (container["env"], cloud["env"]):
        assert [(variable["name"], "value" in variable) for variable in variables] == [(KEY_VARIABLE, False)]


def test_the_task_of_ecs(task):
    assert task["portMappings"] == [{"containerPort": PORT}]
    assert f"127.0.0.1:{PORT}/health" in task["healthCheck"]["command"][-1]
    assert [secret["name"] for secret in task["secrets"]] == [KEY_VARIABLE]


def test_there_is_time_to_drain(task):
    unit = (ROOT / "deploy/llm.service").read_text()
    compose_file = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["llm"]
    waits = [
        task["stopTimeout"],
        pod("kubernetes.yaml")["terminationGracePeriodSeconds"],
        int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]),
        int(compose_file["stop_grace_period"].removesuffix("s")),
    ]
    assert min(waits) > DRAIN_SECONDS


def test_nothing_runs_as_root():
    spec = pod("kubernetes.yaml")
    user = int(re.search(r"--uid (\d+)", DOCKERFILE)[1])
    assert spec["securityContext"] == {"runAsNonRoot": True, "runAsUser": user}
    assert spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False


def test_volumes_are_mounted_where_the_words_look():
    for name in ("kubernetes.yaml", "cloud-run.yaml"):
        spec = pod(name)
        container = spec["containers"][0]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts.keys() <= {volume["name"] for volume in spec["volumes"]}
        assert container["args"][0].removeprefix("run=").startswith(mounts["models"])
