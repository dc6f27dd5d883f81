import os

import pytest

from llm.errors import ConfigError, TrainingError
from llm.train import launch

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", launch.HANDED_OVER, *launch.LAUNCH_NAMES)


@pytest.fixture
def environment(monkeypatch):
    """Sets exactly the given launcher's names."""

    def set_names(**names):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in names.items():
            monkeypatch.setenv(name, value)

    set_names()
    return set_names


def test_a_plain_process_is_rank_0_and_its_children_inherit_the_decision(environment, tmp_path):
    decided = launch.decide(tmp_path, lambda: {"step": 7})
    handed = os.environ[launch.HANDED_OVER]
    environment(LOCAL_RANK="1", **{launch.HANDED_OVER: handed})
    assert launch.rank() == 1
    assert launch.decide(tmp_path, lambda: pytest.fail("only rank 0 decides")) == decided
    assert list(tmp_path.iterdir()) == []


def test_a_child_in_an_interactive_slurm_shell_is_not_taken_for_rank_0(environment):
    environment(SLURM_PROCID="0", LOCAL_RANK="1", **{launch.HANDED_OVER: "{}"})
    assert launch.rank() == 1


def test_torchrun_ranks_read_what_rank_0_wrote_for_this_launch_alone(environment, tmp_path):
    run = {"TORCHELASTIC_RUN_ID": "a", "MASTER_PORT": "1", "WORLD_SIZE": "2"}
    environment(RANK="0", LOCAL_RANK="0", **run)
    launch.decide(tmp_path, lambda: {"step": 7})
    environment(RANK="1", LOCAL_RANK="1", **run)
    assert launch.decide(tmp_path, lambda: pytest.fail("only rank 0 decides")) == {"step": 7}
    environment(RANK="0", LOCAL_RANK="0", **run)
    launch.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_waiting_for_rank_0_ends(environment, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "WAIT_SECONDS", 0.3)
    environment(RANK="1", LOCAL_RANK="1", WORLD_SIZE="2", MASTER_PORT="1")
    with pytest.raises(TrainingError, match="waited"):
        launch.decide(tmp_path, dict)


def test_a_launcher_of_another_size_is_refused(environment):
    environment(RANK="0", LOCAL_RANK="0", WORLD_SIZE="2")
    launch.check_world_size(2)
    with pytest.raises(ConfigError, match=r"trainer\.devices=2"):
        launch.check_world_size(1)
