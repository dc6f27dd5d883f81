import copy

import pytest

from llm.errors import CheckpointError, ConfigError
from llm.train import checkpoint
from llm.train.checkpoint import CheckpointWriter
from llm.train.resume import Start, begin, changes
from llm.train.run import Run

CONFIG = {
    "resume": "auto",
    "allow_changes": False,
    "model": {"d_model": 64},
    "data": {"paths": ["a"], "batch_size": 8},
    "optimizer": {"lr": 1e-3},
    "trainer": {"max_steps": 100},
}
IDENTITY = {"data": "d1", "tokenizer": "t1"}
ABOUT = {"samples": 0, "best": None, "model": {}, **IDENTITY}


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "mine")
    run.hold()
    run.write_config(CONFIG)
    run.update(id="x", identity=IDENTITY)
    for step in (10, 20):
        CheckpointWriter(run.checkpoints, step).write({})
        CheckpointWriter(run.checkpoints, step).publish({**ABOUT, "step": step})
    return run


def start(run, said=None, identity=IDENTITY, **overrides):
    config = copy.deepcopy(CONFIG)
    for key, value in overrides.items():
        group, _, leaf = key.partition("__")
        if leaf:
            config[group][leaf] = value
        else:
            config[key] = value
    return begin(run, config, identity, (said if said is not None else []).append)


def test_auto_goes_on_from_the_newest_and_says_so(run):
    said = []
    assert start(run, said).step == 20
    assert any("step 20" in line for line in said)


def test_auto_starts_where_nothing_is_saved(tmp_path):
    run = Run(tmp_path / "fresh")
    run.hold()
    assert start(run) == Start()


def test_must_refuses_where_nothing_is_saved(tmp_path):
    run = Run(tmp_path / "fresh")
    run.hold()
    with pytest.raises(CheckpointError, match="resume=must"):
        start(run, resume="must")


def test_never_moves_the_earlier_run_aside(run):
    assert start(run, resume="never") == Start()
    assert not run.exists()
    assert len(checkpoint.folders(run.folder.with_name("mine.old-1") / "checkpoints")) == 2


def test_a_given_checkpoint_is_taken_and_newer_ones_are_kept_elsewhere(run):
    older = run.checkpoints / checkpoint.folder_name(10)
    assert start(run, resume=str(older)) == Start(older, 10)
    assert [f.name for f in checkpoint.folders(run.folder / "checkpoints.old-1")] == ["step_00000020"]


def test_safe_changes_are_shown_and_go_on(run):
    said = []
    assert start(run, said, trainer__max_steps=200).step == 20
    assert any("trainer.max_steps: 100 -> 200" in line for line in said)


def test_changes_of_the_course_need_the_flag(run):
    with pytest.raises(ConfigError, match="allow_changes=true"):
        start(run, optimizer__lr=1.0)
    assert start(run, optimizer__lr=1.0, allow_changes=True).step == 20


def test_another_model_is_refused_even_with_the_flag(run):
    with pytest.raises(ConfigError, match="cannot be made within a run"):
        start(run, model__d_model=128, allow_changes=True)


@pytest.mark.parametrize("what", ["data", "tokenizer"])
def test_another_corpus_or_tokenizer_is_refused(run, what):
    with pytest.raises(ConfigError, match=f"The {what} of this run changed"):
        start(run, identity={**IDENTITY, what: "other"})


def test_a_moved_folder_of_the_same_text_is_no_change():
    moved = copy.deepcopy(CONFIG)
    moved["data"]["paths"] = ["b"]
    assert changes(CONFIG, moved) == []
    moved["data"]["batch_size"] = 9
    assert [c.key for c in changes(CONFIG, moved)] == ["data.batch_size"]


def test_a_checkpoint_of_another_run_begins_a_course_of_its_own(run, tmp_path):
    other = Run(tmp_path / "other")
    other.hold()
    assert start(other, resume=str(run.checkpoints / checkpoint.folder_name(10))).step == 10
    # The other way round the steps that stand there are moved away, or the next resume=auto would follow them.
    CheckpointWriter(other.checkpoints, 5).write({})
    folder = CheckpointWriter(other.checkpoints, 5).publish({**ABOUT, "step": 5})
    assert start(run, resume=str(folder)).step == 5
    assert checkpoint.folders(run.checkpoints) == []
    assert len(checkpoint.folders(run.folder / "checkpoints.old-1")) == 2


def test_a_bare_checkpoint_folder_is_taken(run, tmp_path):
    bare = (run.checkpoints / checkpoint.folder_name(10)).rename(tmp_path / checkpoint.folder_name(10))
    fresh = Run(tmp_path / "fresh")
    fresh.hold()
    assert start(fresh, resume=str(bare)).step == 10


def test_a_secret_is_no_change_and_is_not_shown(run):
    said = []
    run.write_config({**CONFIG, "logger": {"wandb": {"api_key": "hunter2"}}})
    assert start(run, said, logger={"wandb": {"api_key": "hunter2"}}).step == 20
    assert "hunter2" not in "".join(said)
