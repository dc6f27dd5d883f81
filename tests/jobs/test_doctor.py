"""What the doctor finds, and that it says what to do."""

import os
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from llm.cli.main import main
from llm.jobs import doctor

KEY = "canary0123456789canary0123456789canary01"


def test_this_installation_has_what_is_needed(tmp_path, capsys):
    words = [f"runs_dir={tmp_path}/runs", f"shards_dir={tmp_path}/shards", "compile=false"]
    assert main(["doctor", *words]) == 0
    out = capsys.readouterr().out
    for part in (
        "Python",
        "torch",
        "cores",
        "accelerator",
        "bfloat16",
        "compile",
        "memory",
        "runs_dir",
        "W&B key",
    ):
        assert part in out
    assert "MISSING" not in out
    assert not list(tmp_path.iterdir())


def test_what_is_missing_makes_the_exit_code(tmp_path, capsys, monkeypatch):
    nothing = [Requirement("no-such-package-anywhere>=2")]
    monkeypatch.setattr(doctor, "declared", lambda: (nothing, ">=3.11"))
    assert main(["doctor", f"runs_dir={tmp_path}", f"shards_dir={tmp_path}", "compile=false"]) == 1
    assert "pip install 'no-such-package-anywhere>=2'" in capsys.readouterr().out


def test_our_requirements_are_found():
    requirements, python = doctor.declared()
    assert {r.name for r in requirements if doctor._needed(r)} >= {"torch", "lightning", "hydra-core"}
    assert "wandb" in {r.name for r in requirements if not doctor._needed(r)}
    assert python.startswith(">=3.11")


def test_a_python_out_of_range():
    assert doctor.check_python(">=3.11,<3.14", "3.10.2").state == "missing"
    assert doctor.check_python(">=3.11,<3.14", "3.13.1").state == "ok"


@pytest.mark.parametrize("line", ["numpy>=99", "numpy!={}"])
def test_a_package_out_of_range_is_named(line):
    import numpy

    *wrong, fine = doctor.check_needed([Requirement(line.format(numpy.__version__))])
    assert [check.state for check in wrong] == ["missing"]
    assert "numpy" in wrong[0].advice
    assert fine.found == ""


def test_an_optional_package_is_only_a_note():
    requirements = [Requirement("wandb>=9999; extra == 'any'")]
    wandb = next(check for check in doctor.check_optional(requirements) if check.name == "wandb")
    assert wandb.state == "note"
    assert "wandb>=9999" in wandb.advice


def test_a_key_is_seen_and_never_shown(tmp_path):
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    found = [
        doctor.check_wandb_key({"WANDB_API_KEY": KEY}),
        doctor.check_wandb_key({"NETRC": str(tmp_path / "netrc")}),
    ]
    assert [check.state for check in found] == ["ok", "ok"]
    assert KEY not in repr(found)
    (tmp_path / "empty").write_text("")
    assert doctor.check_wandb_key({"NETRC": str(tmp_path / "empty")}).state == "note"


def trial(code):
    return subprocess.Popen([sys.executable, "-c", code])


def test_compile_works_fails_or_takes_too_long(monkeypatch):
    assert doctor.check_compile(trial(""), "/usr/bin/c++").state == "ok"
    failed = doctor.check_compile(trial("raise SystemExit(3)"), None)
    assert (failed.state, "g++" in failed.advice) == ("note", True)
    monkeypatch.setattr(doctor, "COMPILE_SECONDS", 0.1)
    slow = trial("import time; time.sleep(60)")
    assert "took over" in doctor.check_compile(slow, "/usr/bin/c++").found
    assert slow.wait(5) != 0


def test_little_memory_and_no_room(tmp_path, monkeypatch):
    assert doctor.check_memory(10**8).state == "note"
    assert doctor.check_memory(10**11).state == "ok"
    monkeypatch.setattr(doctor, "ENOUGH_DISK", 1e30)
    assert doctor.check_disk("runs_dir", tmp_path / "a/b").state == "missing"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_closed_to_us(tmp_path):
    tmp_path.chmod(0o500)
    assert doctor.check_disk("runs_dir", tmp_path / "a").state == "missing"


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    assert doctor.check_disk("runs_dir", tmp_path / "file").state == "missing"
