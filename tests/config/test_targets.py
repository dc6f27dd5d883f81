"""The allowlist of `_target_`: hostile ones are refused by their text alone, and nothing that they name ever runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from llm.cli.compose import compose
from llm.config import check_targets, resolve
from llm.config.targets import refusal
from llm.errors import ConfigError

FRIENDLY = [
    "llm.objective.cross_entropy.CrossEntropy",
    "llm.data.sources.TextFiles",
    "llm.data.sources.text.TextFiles",
    "llm.tokenizer.SentencePieceSpec",
    "llm.train.optimizers.adamw",
    "llm.train.optimizers.Muon",
    "llm.train.schedules.cosine",
    "torch.optim.AdamW",
    "torch.optim.SGD",
    "torch.optim.lr_scheduler.StepLR",
    "lightning.pytorch.strategies.DDPStrategy",
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning.pytorch.loggers.CSVLogger",
]

HOSTILE = [
    # what runs a command, code or a pickle, by its plain name
    "os.system",
    "os.popen",
    "os.execv",
    "os.remove",
    "posix.system",
    "subprocess.run",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "builtins.compile",
    "builtins.__import__",
    "builtins.open",
    "eval",
    "exec",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.loads",
    "shutil.rmtree",
    "importlib.import_module",
    "runpy.run_path",
    "ctypes.CDLL",
    "socket.socket",
    "webbrowser.open",
    "pathlib.Path",
    "code.InteractiveConsole",
    "multiprocessing.Process",
    "sys.exit",
    "yaml.unsafe_load",
    "numpy.load",
    "urllib.request.urlretrieve",
    # the ways in that Hydra's own blocklist leaves open
    "torch.load",
    "torch.hub.load",
    "torch.utils.cpp_extension.load",
    "torch.utils.cpp_extension.load_inline",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "torch.nn.Linear",
    "hydra.utils.instantiate",
    "hydra.utils.call",
    "hydra._internal.instantiate._instantiate2.instantiate",
    "omegaconf.OmegaConf.load",
    # other modules reached through what an allowed module imports
    "torch.optim.adamw.torch.load",
    "torch.optim.optimizer.functools.partial",
    "torch.optim.lr_scheduler.types.FunctionType",
    "torch.optim.optimizer.warnings.sys.modules",
    "lightning.pytorch.strategies.os.system",
    "lightning.pytorch.callbacks.model_checkpoint.shutil.rmtree",
    "lightning.pytorch.callbacks.model_checkpoint.os.remove",
    "lightning.pytorch.cli.LightningCLI",
    "lightning.fabric.utilities.cloud_io._load",
    "lightning.pytorch.utilities.migration.utils.migrate_checkpoint",
    "lightning.pytorch.loggers.wandb.os.system",
    "lightning.os.system",
    "llm.data.sources.text.Path",
    "llm.data.prepare.subprocess.run",
    "llm.train.optimizers.torch.load",
    "llm.train.optimizers.torch",
    "llm.train.checkpoint.writer.shutil.rmtree",
    "llm.files.os.remove",
    # our own code that is no leaf of a config
    "llm.cli.main.main",
    "llm.build.trained_model",
    "llm.jobs.train.run",
    "llm.config.resolve",
    "llm.train.checkpoint.load_tensors",
    "llm.tokenizer.load_tokenizer",
    # private, dunder and malformed names
    "llm.objective.cross_entropy.CrossEntropy.__init__.__globals__",
    "llm.objective.causal_lm.__builtins__.eval",
    "torch.optim.AdamW.__subclasses__",
    "torch.optim._functional.adam",
    "torch.optim.AdamW.step",
    "torch.optim.",
    ".torch.optim.AdamW",
    "torch..optim.AdamW",
    "torch.optim.AdamW ",
    " os.system",
    "torch.optim.AdamW\nos.system",
    "torch.optim.Ad​amW",
    "torch.optim/AdamW",
    "torch.optim.AdamW()",
    "ｏｓ.system",
    "llm.objective.cross_entropy.CrossEntropy;os.system",
    "",
]


@pytest.mark.parametrize("target", FRIENDLY)
def test_what_belongs_to_a_config_is_allowed(target: str) -> None:
    assert refusal(target) is None


@pytest.mark.parametrize("target", HOSTILE, ids=repr)
def test_hostile_targets_are_refused(target: str) -> None:
    assert refusal(target)
    with pytest.raises(ConfigError):
        resolve(target)


@pytest.mark.parametrize("target", [None, 5, ["os.system"], {"a": 1}, True])
def test_a_target_is_text(target: object) -> None:
    assert refusal(target)


def test_there_are_sixty() -> None:
    assert len(set(HOSTILE)) >= 60


@pytest.mark.parametrize("target", HOSTILE, ids=repr)
def test_deeply_nested_hostile_targets_are_found(target: str) -> None:
    good = "lightning.pytorch.callbacks.EarlyStopping"
    bad = {"_target_": target, "x": 1}
    places = [
        {"optimizer": bad},
        {"callbacks": {"mine": {"_target_": good, "inner": bad}}},
        {"callbacks": [{"a": [[{"b": bad}]]}]},
        {"data": {"paths": [1, 2, {"deep": {"deeper": bad}}]}},
    ]
    for config in places:
        with pytest.raises(ConfigError, match="may not be named"):
            check_targets({"packages": [], **config})


@pytest.mark.parametrize("key", ["_partial_", "_args_", "_recursive_", "_convert_"])
def test_hydras_other_keys_are_refused_everywhere(key: str) -> None:
    good = {"_target_": "torch.optim.AdamW", key: True}
    with pytest.raises(ConfigError, match=key):
        check_targets({"packages": [], "optimizer": good})
    with pytest.raises(ConfigError, match=key):
        check_targets(
            {"packages": [], "optimizer": {"_target_": "torch.optim.AdamW", "x": [{key: ["os.system"]}]}}
        )


def test_nothing_is_imported_or_run_by_checking(tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Trap: pass\n")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from llm.config.targets import refusal
targets = {[t for t in HOSTILE if t.isprintable()]!r}
assert all(refusal(t, ['trap']) for t in targets)
assert refusal('trap.Trap', ['trap']) is None and refusal('trap.Trap')
print(sorted({{'torch', 'lightning', 'trap', 'hydra'}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert not (tmp_path / "sprung").exists()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of the user's own, with a class, a function and imports that lead outside."""
    folder = tmp_path / "users_own"
    folder.mkdir()
    (folder / "__init__.py").write_text("from users_own.parts import Mine\nfrom os import system\n")
    (folder / "parts.py").write_text(
        "import os\nfrom subprocess import Popen\nclass Mine:\n    size: int = 3\ndef make() -> Mine: ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "users_own"


def test_a_package_of_ones_own_opens_by_one_key(package: str) -> None:
    assert refusal("users_own.Mine")
    assert refusal("users_own.Mine", [package]) is None
    assert refusal("users_own.parts.Mine", ["users_own.parts"]) is None
    assert refusal("users_own.Mine", ["users_own.parts"])
    assert resolve("users_own.Mine", [package]).__name__ == "Mine"
    check_targets({"packages": [package], "optimizer": {"_target_": "users_own.Mine"}})


@pytest.mark.parametrize(
    "name", ["system", "os.system", "parts.Popen", "parts.os.system", "parts.os", "Missing"]
)
def test_an_opened_package_leads_nowhere_else(package: str, name: str) -> None:
    assert refusal(f"users_own.{name}", [package])


def test_a_function_of_ones_own_is_told_from_what_is_not_there(package: str) -> None:
    assert (
        refusal("users_own.parts.make", [package])
        == "it is a function; name a class that takes the same keys"
    )
    assert refusal("users_own.Missing", [package]) == "there is no class of that name defined in users_own"


@pytest.mark.parametrize("opened", ["os", "subprocess", "builtins", "sys", "pickle", "", "."])
def test_pythons_own_modules_cant_be_opened(opened: str) -> None:
    assert refusal("os.system", [opened])
    assert refusal("subprocess.Popen", [opened])
    assert refusal("pickle.Unpickler", [opened])


@pytest.mark.parametrize(
    ("target", "offered"),
    [
        ("os.system", False),
        ("builtins.eval", False),
        ("posix.system", False),
        ("torch.load", False),
        ("llm.files.read_json", False),
        ("my_package.Mine", True),
    ],
)
def test_only_a_package_of_ones_own_is_offered_to_be_opened(target: str, offered: bool) -> None:
    with pytest.raises(ConfigError) as refused:
        check_targets({"optimizer": {"_target_": target}})
    assert (f"packages=[{target.partition('.')[0]}]" in str(refused.value)) is offered


@pytest.mark.parametrize("package", ["nosuchpkg", "nosuchpkg.inside", "..", 5, None])
def test_a_package_that_is_not_there_is_said(package: object) -> None:
    with pytest.raises(ConfigError, match="there is no such package"):
        check_targets({"packages": [package]})


def test_the_command_line_is_no_way_around() -> None:
    with pytest.raises(ConfigError, match="may not be named"):
        compose("train", ["optimizer._target_=os.system"])
    with pytest.raises(ConfigError, match="part of Python"):
        compose("train", ["packages=[os]", "optimizer._target_=os.system"])


def test_an_experiment_file_is_no_way_around(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "evil.yaml"
    file.write_text("# @package _global_\nhidden: os.system\ncallbacks:\n  x:\n    _target_: ${hidden}\n")
    with pytest.raises(ConfigError, match=r"os\.system"):
        compose("train", ["--config-dir", str(tmp_path), "experiment=evil"])
