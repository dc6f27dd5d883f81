"""Runs side by side: labels, differences, curves, and a page that is safe and offline."""

import re

import pytest

from llm.report.compare import NOT_SET, differences, labels, read_runs, write_comparison
from llm.train.loggers import LoggedRun, MetricsCSV
from llm.train.run import Run

EVIL = "</script><script>alert(1)</script>"


def make(folder, tokens_per_step=100, lr=1e-3, validate=True):
    run = Run(folder)
    run.update(status="finished")
    run.write_config({"name": folder.name, "optimizer": {"lr": lr}, "seed": 1, "note": EVIL})
    log = MetricsCSV(LoggedRun(folder, "id", "a", {}))
    for step in (10, 20, 30):
        log.log_metrics({"tokens": step * tokens_per_step, "train/loss": 1 / step}, step)
    if validate:
        log.log_metrics({"val/loss": 0.5}, 35)
    return folder


def page(folders, out):
    return write_comparison(read_runs(folders), out, lambda summary: {"status": summary.status}).read_text()


def test_labels_are_as_short_as_they_can_be(tmp_path):
    assert labels([tmp_path / "x/a", tmp_path / "x/b"]) == ["a", "b"]
    assert labels([tmp_path / "x/a", tmp_path / "y/a", tmp_path / "y/b"]) == ["x/a", "y/a", "y/b"]


def test_differences_are_by_dotted_key():
    first = {"name": "a", "optimizer": {"lr": 1, "momentum": 0.9}, "compile": True, "x": None}
    second = {"name": "b", "optimizer": {"lr": 2}, "compile": False, "x": "null"}
    found = {row.key: row.values for row in differences([first, second])}
    assert found == {
        "compile": ["true", "false"],
        "optimizer.lr": ["1", "2"],
        "optimizer.momentum": ["0.9", NOT_SET],
    }


def test_the_page_holds_curves_differences_and_nothing_alive(tmp_path):
    text = page([make(tmp_path / "a"), make(tmp_path / EVIL.replace("/", "_"), lr=0.5)], tmp_path / "c.html")
    assert "optimizer.lr" in text
    assert "<script>alert" not in text
    assert not re.search(r"https?://|url\(|@import", text)
    assert text.count("<svg") == 2
    assert text.count('class="curve"') == 4


def test_many_runs_are_rows_and_named_once_and_no_two_look_alike(tmp_path):
    text = page(
        [make(tmp_path / f"r{number:02}", lr=number + 1) for number in range(10)], tmp_path / "c.html"
    )
    config = text.partition("where it differs")[2].partition("</table>")[0]
    assert re.findall(r'<th scope="col">([^<]+)</th>', config) == ["run", "optimizer.lr"]
    assert re.findall(r'<td data-of="optimizer.lr">([^<]+)</td>', config) == [str(n + 1) for n in range(10)]
    assert text.count('class="card keyed"') == 1
    looks = re.findall(r'<g class="([^"]+)">', re.search(r"<svg.*?</svg>", text, re.DOTALL)[0])
    assert len(set(looks)) == 10
    assert looks[8:] == ["c0 dashed", "c1 dashed"]


def test_a_run_has_one_colour_in_every_chart(tmp_path):
    text = page([make(tmp_path / "a", validate=False), make(tmp_path / "b")], tmp_path / "c.html")
    validation, training = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert re.findall(r'<g class="(c\d)">', validation) == ["c1"]
    assert re.findall(r'<g class="(c\d)">', training) == ["c0", "c1"]


@pytest.mark.parametrize(("other", "by"), [(100, "step"), (200, "tokens")])
def test_tokens_are_the_axis_where_steps_differ(tmp_path, other, by):
    text = page([make(tmp_path / "a"), make(tmp_path / "b", other)], tmp_path / "c.html")
    assert set(re.findall(r'data-by="(\w+)"', text)) == {by}
    places = re.findall(r'<script type="application/json">\[\[\[(\d+)', text)
    assert places == (["35", "10"] if by == "step" else ["3500", "1000"])


def test_a_broken_run_is_compared_with_a_note(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b")
    (tmp_path / "b/run.json").write_text("{")
    (tmp_path / "b/config.yaml").write_text("a: [")
    (tmp_path / "b/metrics.csv").write_bytes(b"\xff\x00")
    text = page([tmp_path / "a", tmp_path / "b"], tmp_path / "c.html")
    assert "run.json can&#39;t be read" in text
    assert "config.yaml can&#39;t be read" in text
