"""The files that deploy the server say what the server takes: its keys, its port, its route of health, its time to stop."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from llm.cli.compose import compose
from llm.jobs.serve import DRAIN_SECONDS, KEY_VARIABLE
from llm.serve import Guarding, check_frame_ancestors

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PORT = int(re.search(r"EXPOSE (\d+)", DOCKERFILE)[1])
SPACE = ROOT / "deploy/spaces"
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
    yield [*of_image, *words_of_space()]


def words_of_space():
    dockerfile = (SPACE / "Dockerfile").read_text().replace("\\\n", "")
    return json.loads(re.search(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)[1])


@pytest.mark.parametrize(
    "words", arguments(), ids=["kubernetes", "cloud run", "ecs", "compose", "systemd", "spaces"]
)
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


def test_a_task_of_ecs_has_time_to_load_and_a_log(task):
    assert task["healthCheck"]["startPeriod"] == 300  # the most that there is; the service's own has no bound
    page = (ROOT / "docs/deploying.md").read_text()
    assert "--health-check-grace-period-seconds" in page
    assert f"--log-group-name {task['logConfiguration']['options']['awslogs-group']}" in page


def test_cloud_run_waits_as_long_as_it_can():
    probe = pod("cloud-run.yaml")["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 240


def test_a_pod_is_out_of_its_service_before_it_closes_its_port():
    spec = pod("kubernetes.yaml")
    (container,) = spec["containers"]
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert spec["terminationGracePeriodSeconds"] > int(seconds) + DRAIN_SECONDS


def test_a_server_behind_a_proxy_knows_the_proxys_name():
    unit = (ROOT / "deploy/llm.service").read_text()
    words = shlex.split(re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)[1])[2:]
    config = compose("serve", words).config
    guarding = Guarding.of(config["host"], "key", config["allowed_hosts"])
    assert guarding.knows_host("domain")
    assert guarding.knows_origin("https://domain", "127.0.0.1:8000")


@pytest.fixture
def space(tmp_path):
    """A Space as docs/deploying.md has it made: the files of deploy/spaces, and an exported model beside them."""
    folder = tmp_path / "space"
    shutil.copytree(SPACE, folder)
    (folder / "mine").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / "mine" / name).write_text("{}")
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


def test_what_a_space_copies_is_in_its_repository(space):
    dockerfile = (space / "Dockerfile").read_text()
    (copied,) = re.findall(r"^COPY --chown=user (\S+) (\S+)$", dockerfile, re.MULTILINE)
    assert words_of_space()[0] == f"run={copied[1]}"
    assert not (space / ".dockerignore").exists()
    subprocess.run(["git", "-C", space, "-c", "filter.lfs.clean=cat", "add", "."], check=True)
    listed = subprocess.run(["git", "-C", space, "ls-files"], check=True, capture_output=True, text=True)
    assert {"Dockerfile", "README.md", f"{copied[0]}/model.safetensors"} <= set(listed.stdout.split())
    asked = ["check-attr", "filter", f"{copied[0]}/model.safetensors", f"{copied[0]}/config.json"]
    filters = subprocess.run(["git", "-C", space, *asked], check=True, capture_output=True, text=True).stdout
    assert [line.rpartition(" ")[2] for line in filters.splitlines()] == ["lfs", "unspecified"]


def test_a_space_is_one_of_docker_whose_page_the_hub_may_frame():
    front = yaml.safe_load((SPACE / "README.md").read_text().split("---")[1])
    assert (front["sdk"], front["app_port"]) == ("docker", PORT)
    config = compose("serve", [*ENTRYPOINT[2:], *words_of_space()]).config
    assert config["frame_ancestors"] == ["https://huggingface.co"]
    check_frame_ancestors(config["frame_ancestors"])
    guarding = Guarding.of(config["host"], "key", config["allowed_hosts"])
    assert guarding.knows_origin("https://name-space.hf.space", "10.0.0.1:8000")
    user, home = re.findall(
        r"^USER (\w+)$|^WORKDIR (\S+)$", (SPACE / "Dockerfile").read_text(), re.MULTILINE
    )[-2:]
    assert (user[0], home[1]) == ("user", "/home/user")


def test_there_is_time_to_drain(task):
    unit = (ROOT / "deploy/llm.service").read_text()
    compose_file = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["llm"]
    waits = [
        task["stopTimeout"],
        pod("kubernetes.yaml")["terminationGracePeriodSeconds"],
        int(re.search(r"TimeoutStopSec=(\d+)", unit)[1]),
        int(compose_file["stop_grace_period"].removesuffix("s")),
        *(
            int(seconds)
            for shown in (DOCKERFILE, (ROOT / "docs/serving.md").read_text())
            for seconds in re.findall(r"docker run --stop-timeout (\d+)", shown)
        ),
    ]
    assert len(waits) == 6
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
