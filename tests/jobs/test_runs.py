"""`llm runs` as a person sees it."""

import datetime
import json

import pytest

from llm.cli.main import main
from llm.jobs.runs import shortened
from llm.jobs.show import amount, duration, number
from llm.train.run import Run


@pytest.fixture
def runs(tmp_path):
    hour = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=2, minutes=5)
    for name, status in (("a", "finished"), ("group/b", "failed")):
        run = Run(tmp_path / name)
        run.update(status=status, parameters=1_500_000, derived={"max_steps": 20}, created=hour.isoformat())
        run.write_config({"name": name, "optimizer": {"lr": 0.001 if name == "a" else 0.002}})
        run.samples.write_text(json.dumps({"prompt": "def ", "text": "f():\n  \x1b[2J" + "x" * 500}) + "\n")
    (tmp_path / "broken/checkpoints").mkdir(parents=True)
    return tmp_path


def test_the_list(runs, capsys):
    assert main(["runs", f"runs_dir={runs}"]) == 0
    out = capsys.readouterr().out
    heading, first, sample, broken, trouble, *_ = out.splitlines()
    assert heading.split()[:3] == ["run", "status", "step"]
    assert first.split() == ["a", "finished", "0/20", "-", "-", "-", "1.5M", "2", "h", "5", "min"]
    assert sample.strip().startswith("def f():")
    assert len(sample) < 200
    assert "\x1b" not in out
    assert broken.split()[:2] == ["broken", "broken"]
    assert "holds no run.json" in trouble
    assert "group/b" in out


def test_no_runs(tmp_path, capsys):
    assert main(["runs", f"runs_dir={tmp_path}"]) == 0
    assert "no run" in capsys.readouterr().out
    assert main(["runs", f"runs_dir={tmp_path}/nowhere"]) == 2


def test_a_comparison(runs, capsys):
    assert main(["runs", f"run=[{runs}/a,{runs}/group/b]", f"out={runs}/page.html"]) == 0
    out = capsys.readouterr().out
    assert "optimizer.lr  0.001  0.002" in out
    assert str(runs / "page.html") in out
    assert "optimizer.lr" in (runs / "page.html").read_text()


def test_the_page_stands_in_runs_dir_by_default(runs):
    assert main(["runs", f"runs_dir={runs}", f"run=[{runs}/a,{runs}/group/b]"]) == 0
    assert (runs / "compare.html").is_file()


@pytest.mark.parametrize(("names", "code"), [("a", 2), ("a,a", 2), ("a,nowhere", 1)])
def test_what_cannot_be_compared(runs, capsys, names, code):
    words = ",".join(f"{runs}/{name}" for name in names.split(","))
    assert main(["runs", f"run=[{words}]"]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_shortened_is_one_printable_line():
    assert shortened("a\n\tb\x1b[31m", 20) == "a b [31m"
    assert shortened("x" * 30, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (150, "2 min 30 s"), (11520, "3 h 12 min"), (1e6, "11 d")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_amounts_and_numbers():
    assert [amount(value) for value in (5, 1234, 1.5e9, 2e22)] == ["5 ", "1.23 k", "1.5 G", "20 Z"]
    assert [number(value) for value in (1234.0, 0.12345, float("nan"))] == ["1,234", "0.1235", "nan"]
