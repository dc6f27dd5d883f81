"""Wrong commands: one short message that names what is wrong and the way out, exit code 2, nothing written."""

import re
from pathlib import Path

import pytest

from llm.cli.main import main
from llm.config import Composed

WRONG = {
    # keys
    "trainer.max_step=5": [
        "trainer.max_step=5",
        "no key trainer.max_step",
        "Did you mean trainer.max_steps?",
    ],
    "modle.n_layers=5": ["no key modle.n_layers", "Did you mean model.n_layers?"],
    "strategi=fsdp": ["strategi=fsdp", "Did you mean strategy?"],
    "hydra.run.dir=x": ["runs_dir=", "name="],
    "data.paths=x": ["data.paths=x", "data=text", "data=jsonl"],
    "schedule.total_steps=5": ["no key schedule.total_steps"],
    "zzz=5": ["no key zzz", "--help"],
    "zzz.yyy=5": ["no key zzz.yyy"],
    "=5": ["no key"],
    "trainer.=5": ["no key trainer."],
    # other tools' words
    "optimizer.learning_rate=1e-3": ["Did you mean optimizer.lr?"],
    "learning_rate=1e-3": ["Did you mean optimizer.lr?"],
    "lr=1e-3": ["Did you mean optimizer.lr?"],
    "epochs=3": ["Did you mean trainer.max_epochs?"],
    "batch=3": ["Did you mean data.batch_size?"],
    "max_steps=3": ["Did you mean trainer.max_steps?"],
    # keys and choices without the group that they belong to
    "paths=my/*.txt": ["no key paths", "data=text data.paths=my/*.txt", "data=jsonl data.paths=my/*.txt"],
    "path=x": ["data=text data.paths=x", "data=huggingface data.path=x"],
    "text=my.txt": ["no key text", "data=text data.paths=my.txt"],
    "streaming=true": ["data=huggingface data.streaming=true"],
    "momentum=0.9": ["optimizer=muon optimizer.momentum=0.9"],
    "muon=true": ["write optimizer=muon"],
    "wandb=true": ["write logger=wandb"],
    # choices
    "model=gpt_mediun": ["no such model", "Did you mean model=gpt_medium?", "llama_8b"],
    "model=gpt-small": ["Did you mean model=gpt_small?"],
    "experiment=foo": ["no such experiment", "demo"],
    "model=": ["no such model"],
    "model=null": ["no such model"],
    "model=nano,gpt_nano": ["no such model", "gpt_nano"],
    "optimizer=5": ["no such optimizer", "adamw"],
    "logger=[csv,wandbb]": ["no such logger", "Did you mean logger=wandb?"],
    "logger=[csv": ["isn't closed"],
    "model=../train": ["no such model"],
    # types
    "model.n_layers=four": ["model.n_layers=four", "expected int", "got text"],
    "model.n_layers=6.0": ["expected int", "got float", "Write 6."],
    "trainer.max_steps=ten": ["trainer.max_steps=ten", "expected int", "got text"],
    "trainer.max_steps=": ["expected int", "got null"],
    "trainer.max_steps=true": ["expected int", "got bool"],
    "trainer.max_steps='5'": ["expected int", "got text"],
    "trainer.max_steps=[5]": ["expected int", "got list"],
    "trainer.max_steps={a:5}": ["expected int"],
    "trainer.max_steps=(": ["expected int", "got text"],
    "optimizer.lr=fast": ["optimizer.lr=fast", "expected float", "got text"],
    "optimizer.lr=nan": ["expected float"],
    "optimizer.betas=[0.9]": ["expected"],
    "optimizer.betas=0.9": ["expected"],
    "optimizer.betas=[0.9, 0.95": ["isn't closed by ]"],
    "model.norm=rmsnorm": ["expected one of layer, rms"],
    "model.activation=swigl": ["Did you mean swiglu?"],
    "trainer.precision=bf16-mixd": ["Did you mean bf16-mixed?"],
    "trainer.precision=16-mixed": ["Did you mean bf16-mixed?"],
    "optimizer.lr=-1e-3": ["optimizer.lr=-0.001: expected float above 0."],
    "optimizer.betas=[0.9,1.0]": ["expected a list of float from 0 below 1"],
    "trainer.devices=two": ["expected int or auto or a list of int"],
    "data.batch_size=0": ["expected int above 0"],
    "checkpoint.every_n_steps=-1": ["expected int above 0"],
    "trainer.max_steps=-2": ["expected int from -1"],
    "trainer.limit_val_batches=-1": ["expected int from 0 or float above 0 up to 1"],
    "task.objective.label_smoothing=1.5": ["expected float from 0 up to 1"],
    "tokenizer.character_coverage=1.1": ["expected float above 0 up to 1"],
    "samples.temperature=-0.5": ["expected float from 0"],
    "compile=maybe": ["expected bool or auto"],
    "trainer=5": ["no such trainer"],
    "checkpoint=5": ["this is a group of keys", "checkpoint.every_n_steps="],
    "model.rope_scaling.factr=2": ["Did you mean model.rope_scaling.factor?"],
    "model.rope_scaling={factor:x}": ["model.rope_scaling.factor=x", "expected float"],
    "model.rope_scaling={factr:2}": ["no key model.rope_scaling.factr"],
    "seed=1,2": ["one value"],
    "seed=${nothing}": ["nothing"],
    "seed=${seed}": ["seed"],
    "runs_dir=": ["runs_dir=", "expected text", "got nothing"],
    # packages
    "packages=[nosuchpkg]": ["packages=[nosuchpkg]", "no such package", "PYTHONPATH"],
    "packages=[.]": ["no such package"],
    "packages=[subprocess]": ["part of Python"],
    # keys whose value follows from another
    "trainer.accumulate_grad_batches=4": ["data.micro_batch_size"],
    "trainer.strategy=ddp": ["strategy="],
    "trainer.logger=x": ["logger="],
    "trainer.callbacks=[]": ["callbacks="],
    "trainer.default_root_dir=x": ["runs_dir"],
    "trainer.fast_dev_run=true": ["debug=fast"],
    "trainer.enable_checkpointing=false": ["checkpoint.every_n_steps"],
    # words of the wrong shape
    "model": ["an equals sign is missing", "write model=<value>"],
    "foo": ["an equals sign is missing"],
    "~model": ["~model", "can't be removed", "model=<another>"],
    "~model=nano": ["can't be removed"],
    "--lr=3": ["--lr=3", "without dashes", "write optimizer.lr=3"],
    "--model=gpt_small": ["write model=gpt_small"],
    "--frobnicate": ["--frobnicate", "without dashes"],
    "-x": ["-x"],
    "": ["an equals sign is missing"],
}
WRONG_WORDS = {
    ("--max_steps", "5"): ["--max_steps 5", "write trainer.max_steps=5"],
    ("--max-steps", "5"): ["write trainer.max_steps=5"],
    ("--model", "gpt_small"): ["write model=gpt_small"],
    ("--config-dir",): ["a value is missing"],
    ("--config-dir", "no/such/folder"): ["no such folder"],
    ("--cfg", "all"): ["only --cfg job"],
    ("-c", "job", "-p", "optimzer"): ["Did you mean optimizer?"],
    ("seed=1", "seed=2"): ["seed", "twice", "1", "2"],
    ("model=nano", "model=gpt_nano"): ["model", "twice"],
    ("init_from=runs/a", "model=nano"): ["init_from=runs/a brings its own model"],
    ("init_from=runs/a", "model.context_length=64"): ["context_length=64 shortens it"],
    ("init_from=runs/a", "tokenizer=byte"): ["init_from=runs/a brings its own tokenizer"],
    ("data=text", "paths=x"): ["Did you mean data.paths?"],
    ("data=jsonl", "text=x"): ["Did you mean data.text?"],
    ("data=text",): ["data.paths: this is needed", "data.paths=<value>"],
    ("tokenizer=pretrained",): ["tokenizer.path: this is needed"],
}
CASES = [*(((word,), parts) for word, parts in WRONG.items()), *WRONG_WORDS.items()]


@pytest.mark.parametrize(("words", "parts"), CASES, ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_a_wrong_command_gets_one_short_message(
    words: tuple[str, ...],
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert "Traceback" not in told.err
    assert len(told.err.splitlines()) <= 3
    assert len(told.err) < 500
    assert [part for part in parts if part not in told.err] == []
    assert list(tmp_path.iterdir()) == []


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    return capsys.readouterr().err


def test_every_problem_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    err = error_of(capsys, "train", "model.n_layers=four", "trainer.max_steps=ten")
    assert "model.n_layers=four" in err
    assert "trainer.max_steps=ten" in err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["generate"], "run: this is needed"),
        (["generate", "run="], "expected text, got nothing"),
        (["generate", "run=x", "model=nano"], "no key model"),
        (["generate", "run=x", "temprature=1"], "Did you mean temperature?"),
        (["generate", "run=x", "max_tokens=1"], "Did you mean max_new_tokens?"),
        (["generate", "run=x", "top_p=2"], "expected float above 0 up to 1"),
        (["generate", "run=x", "temperature=nan"], "expected float"),
        (["generate", "run=x", "repetition_penalty=1e-40"], "expected float from 1e-06 up to 1000000"),
        (["chat", "run=x", "repetition_penalty=1e40"], "expected float from 1e-06 up to 1000000"),
        (["generate", "run=x", "max_new_tokens=-5"], "expected int above 0"),
        (["generate", "run=x", "prompt", "hello"], "write prompt=<value>"),
        (["evaluate"], "run: this is needed"),
        (["evaluate", "run=x", "data.paths=y"], "data=text"),
        (["evaluate", "run=x", "optimizer=muon"], "no key optimizer"),
        (["prepare", "trainer.max_steps=3"], "no key trainer.max_steps"),
        (["trian"], "Did you mean llm train?"),
        (["frobnicate"], "no such command"),
        (["completion"], "bash"),
        (["completion", "zhs"], "Did you mean zsh?"),
        (["train", "-m", "seed=1"], "-m"),
    ],
)
def test_other_commands(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert part in error_of(capsys, *words)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "experiment").mkdir()
    return tmp_path


def try_experiment(own: Path, text: str, capsys: pytest.CaptureFixture[str]) -> str:
    (own / "experiment" / "mine.yaml").write_text(text, encoding="utf-8")
    return error_of(capsys, "train", "--config-dir", str(own), "experiment=mine")


def test_a_mistake_in_a_file_names_the_file(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = try_experiment(own, "# @package _global_\ntrainer:\n  max_step: 5\n", capsys)
    assert "Did you mean trainer.max_steps?" in err
    assert str(own / "experiment" / "mine.yaml") in err
    err = try_experiment(own, "# @package _global_\nmodel:\n  n_layers: '6'\n", capsys)
    assert "model.n_layers=6: expected int, got text" in err
    assert str(own / "experiment" / "mine.yaml") in err


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("# @package _global_\ndefaults:\n  - override /model: nothing\n", "model/nothing"),
        ("# @package _global_\ndefaults:\n  - override /nothing: x\n", "nothing"),
        ("# @package _global_\ntrainer: 5\n", "trainer"),
        ("# @package _global_\nmodel: null\n", "model"),
        ("# @package _global_\noptimizer:\n  - 1\n", "experiment/mine"),
        ("# @package _global_\na: 1\na: 2\n", "a"),
        ("# @package _global_\nname: [\n", "not valid YAML"),
        ("# @package _global_\nname: !!python/object/apply:os.system ['touch owned']\n", "python/object"),
        ("# @package _global_\nname: !evil x\n", "!evil"),
        ("# @package _global_\nseed: ${oc.env:NO_SUCH_VARIABLE}\n", "NO_SUCH_VARIABLE"),
        ("just text\n", ""),
        ("- a\n- list\n", ""),
    ],
)
def test_bad_files(
    text: str, part: str, own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(own)
    err = try_experiment(own, text, capsys)
    assert part in err
    assert "Traceback" not in err
    assert sorted(path.name for path in own.rglob("*")) == ["experiment", "mine.yaml"]


def test_a_choice_of_ours_cant_be_shadowed(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "experiment" / "demo.yaml").write_text("# @package _global_\nname: mine\n")
    err = error_of(capsys, "train", "--config-dir", str(own), "experiment=demo")
    assert "experiment=demo is taken" in err


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(composed: Composed) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr("llm.jobs.prepare.run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["prepare"])


def test_an_error_of_a_job_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from llm.errors import DataError

    def failing(composed: Composed) -> int:
        raise DataError("x is empty: give another")

    monkeypatch.setattr("llm.jobs.prepare.run", failing)
    assert main(["prepare"]) == 1
    assert re.fullmatch("error: x is empty: give another\n", capsys.readouterr().err)


def test_ctrl_c_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(composed: Composed) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("llm.jobs.prepare.run", stopped)
    assert main(["prepare"]) == 130
    assert "Traceback" not in capsys.readouterr().err
