import os
import socket
import threading

import pytest

from llm.errors import ConfigError, TrainingError
from llm.train import launch

NAMES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RESTART_COUNT",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_JOB_NAME",
    "SLURM_STEP_ID",
    launch.HANDED_OVER,
)


@pytest.fixture
def environment(monkeypatch):
    """Sets exactly the given launcher's names."""

    def set_names(**names):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in names.items():
            monkeypatch.setenv(name, value)

    for name in NAMES:
        # Noted, so that what the launch itself sets is gone afterwards.
        monkeypatch.setenv(name, "")
    set_names()
    launch._store.cache_clear()
    yield set_names
    launch._store.cache_clear()


def test_a_plain_process_is_rank_0_and_its_children_inherit_the_decision(environment):
    decided = launch.decide(lambda: {"step": 7})
    handed = os.environ[launch.HANDED_OVER]
    environment(LOCAL_RANK="1", **{launch.HANDED_OVER: handed})
    assert launch.rank() == 1
    assert launch.decide(lambda: pytest.fail("only rank 0 decides")) == decided
    environment(**{launch.HANDED_OVER: handed})
    launch.forget()
    assert launch.HANDED_OVER not in os.environ


def test_a_child_in_an_interactive_slurm_shell_is_not_taken_for_rank_0(environment):
    environment(SLURM_PROCID="0", LOCAL_RANK="1", **{launch.HANDED_OVER: "{}"})
    assert launch.rank() == 1
    assert launch.launched() == 0


@pytest.mark.parametrize("name", ["bash", "interactive"])
def test_a_shell_in_a_slurm_job_is_no_launcher(environment, name):
    environment(SLURM_PROCID="0", SLURM_NTASKS="4", SLURM_JOB_NAME=name)
    assert launch.launched() == 0


def test_a_task_that_srun_did_not_start_waits_for_no_other(environment):
    environment(SLURM_PROCID="0", SLURM_NTASKS="4", SLURM_JOB_NAME="train")
    with pytest.raises(ConfigError, match="write srun before the command"):
        launch.check_alike({})


@pytest.fixture
def store(monkeypatch):
    """Stands for the launch's store; the ranks of these tests are one process after another."""
    from torch.distributed import HashStore

    store = HashStore()
    monkeypatch.setattr(launch, "_launch_store", lambda: store)
    monkeypatch.setattr(launch, "_runs", iter([0] * 9))
    return store


def as_rank(environment, number, **names):
    environment(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", **names)
    launch._store.cache_clear()


def test_ranks_of_a_launcher_read_what_rank_0_decided(environment, store):
    as_rank(environment, 0)
    launch.decide(lambda: {"step": 7})
    assert launch.HANDED_OVER not in os.environ
    as_rank(environment, 1)
    assert launch.decide(lambda: pytest.fail("only rank 0 decides")) == {"step": 7}


def test_a_second_run_in_the_same_processes_has_a_decision_of_its_own(environment, store, monkeypatch):
    monkeypatch.setattr(launch, "_runs", iter([0, 1, 1]))
    as_rank(environment, 0)
    launch.decide(lambda: {"step": 7})
    launch.forget()
    assert launch.decide(lambda: {"step": 8}) == {"step": 8}
    as_rank(environment, 1)
    assert launch.decide(dict) == {"step": 8}


def test_ranks_end_with_the_code_of_a_rank_0_that_refuses(environment, store, capsys):
    def refuse():
        raise ConfigError("no")

    as_rank(environment, 0)
    with pytest.raises(ConfigError):
        launch.decide(refuse)
    as_rank(environment, 1)
    with pytest.raises(SystemExit) as ended:
        launch.decide(dict)
    assert ended.value.code == 2
    assert capsys.readouterr().err == ""


def test_waiting_for_rank_0_ends(environment, store, monkeypatch):
    monkeypatch.setattr(launch, "WAIT_SECONDS", 0.3)
    as_rank(environment, 1)
    with pytest.raises(TrainingError, match=r"heard nothing of rank 0"):
        launch.decide(dict)


@pytest.mark.parametrize(("start", "left"), [("0", 2), ("1", 0)])
def test_a_second_start_does_not_find_the_addresses_of_the_first(environment, monkeypatch, start, left):
    from torch.distributed import PrefixStore, TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setattr(launch, "_launch_store", lambda: store)
    monkeypatch.setattr(launch, "_runs", iter([0]))
    group = PrefixStore("default_pg", store)
    for rank in ("0", "1"):
        group.set(f"0//cpu//0/{rank}", "an address")
    store.set("torchrun's own", "")
    as_rank(environment, 0, TORCHELASTIC_RESTART_COUNT=start)
    launch.decide(dict)
    assert sum("address" in store.get(key).decode() for key in store.list_keys()) == left
    assert store.check(["torchrun's own"])


OURS = {"versions": {"torch": "2.13"}, "config values": {"seed": 1}}


def test_ranks_that_are_alike_go_on(environment, store):
    as_rank(environment, 1)
    launch.check_alike(OURS)
    as_rank(environment, 0)
    launch.check_alike(OURS)
    launch.decide(lambda: {"step": 7})
    as_rank(environment, 1)
    assert launch.decide(dict) == {"step": 7}


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"versions": {"torch": "2.11"}}, r"versions differ.*rank 1.*torch=2\.11.*rank 0.*torch=2\.13"),
        ({"config values": {"seed": 2}}, r"config values differ.*rank 1.*seed=2.*rank 0.*seed=1"),
        ({"config values": {"seed": 1, "name": "x"}}, r"rank 1.*name=x.*rank 0.*name=None"),
    ],
)
def test_ranks_that_differ_are_refused(environment, store, theirs, message):
    as_rank(environment, 1)
    launch.check_alike(OURS | theirs)
    as_rank(environment, 0)
    with pytest.raises(ConfigError, match=message):
        launch.check_alike(OURS)
    as_rank(environment, 1)
    with pytest.raises(SystemExit) as ended:
        launch.decide(dict)
    assert ended.value.code == 2


def test_rank_0_keeps_the_store_where_torchrun_has_none(environment):
    """The other rank stands in a thread, over TCP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment(RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    launch._launch_store.cache_clear()
    heard = []

    def other():
        from torch.distributed import PrefixStore, TCPStore

        client = TCPStore("127.0.0.1", port, 2, False)
        heard.append(launch._wait(PrefixStore("llm/0/0", client), "decision", "rank 0"))

    waiting = threading.Thread(target=other)
    waiting.start()
    launch.decide(lambda: {"step": 7})
    waiting.join()
    assert heard == [{"decided": {"step": 7}}]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, r"trainer\.devices=2\.$"),
        (
            {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"},
            r"trainer\.devices=2 trainer\.num_nodes=2\.$",
        ),
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4"},
            r"trainer\.devices=4\.$",
        ),
    ],
)
def test_a_launcher_of_another_size_is_refused(environment, names, words):
    environment(**names)
    launch.check_world_size(launch.launched())
    with pytest.raises(ConfigError, match=words):
        launch.check_world_size(1)
