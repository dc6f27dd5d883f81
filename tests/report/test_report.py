"""report.html: complete, escaped, offline, and there whatever the folder lacks."""

import html.parser
import json
import math
import re

import pytest
import yaml

from llm.pages import figure
from llm.report.run import read_samples, render, unique, write_report
from llm.train.loggers import LoggedRun, MetricsCSV
from tests.browsing import PHONE, faults, width_beyond

EVIL = "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028{{ 7*7 }}&amp;"


class Page(html.parser.HTMLParser):
    """The tags and the visible text of a page, checked for being closed in order."""

    VOID = frozenset({"meta", "line", "circle", "path", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self._open = [], [], "", []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def folder(tmp_path):
    log = MetricsCSV(LoggedRun(tmp_path, "id", "name", {}))
    for step in range(10, 110, 10):
        log.log_metrics(
            {
                "tokens": step * 1000,
                "train/loss": 100 / step,
                "train/bits_per_byte": 50 / step,
                "lr": 1e-3,
                "grad_norm": 1.0,
                "tokens_per_second": 12345.0,
                "mfu": 0.4321,
                "data_wait": 0.01,
            },
            step,
        )
        if step % 50 == 0:
            log.log_metrics({"val/loss": 110 / step, "val/bits_per_byte": 55 / step}, step)
    samples = [{"step": step, "prompt": f"prompt{step}", "text": EVIL} for step in (50, 100)]
    lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples]
    (tmp_path / "samples.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": {"d_model": 256}, "name": EVIL}))
    record = {
        "name": f"my {EVIL}",
        "status": "finished",
        "fingerprints": {"data": "f00d", EVIL: EVIL},
        "resumes": [{"step": 40}],
        "environment": {"torch": "2.x"},
    }
    (tmp_path / "run.json").write_text(json.dumps(record))
    entry = {
        "evaluation": "perplexity",
        "data": "stdlib",
        "split": "validation",
        "metrics": {"bits_per_byte": 0.987654},
        "intervals": {"bits_per_byte": [0.912, 1.0625]},
        "examples": 3,
        "checkpoint": "step_00000100",
    }
    (tmp_path / "evaluation.json").write_text(json.dumps([entry]))
    (tmp_path / "results.json").write_text(json.dumps([entry, {"evaluation": EVIL, "metrics": {EVIL: 1.5}}]))
    return tmp_path


def test_everything_is_there(folder):
    path = write_report(folder)
    page = Page(path.read_text(encoding="utf-8"))
    assert path == folder / "report.html"
    for part in (
        "100,000",  # tokens
        "0.55",  # the best validation
        "best, step 100",
        "12,345",
        "43.2%",
        "Loss (nats per token)",
        "Bits per byte",
        "Learning rate",
        "Gradient norm",
        "Tokens per second",
        "prompt50",
        "prompt100",
        "d_model: 256",
        "f00d",
        "2.x",
        "0.98765 0.912 to 1.0625",
        "finished",
    ):
        assert part in page.text, part
    assert page.tags.count("svg") == 6
    assert page.text.count("perplexity") == 1
    assert page.text.index("prompt100") < page.text.index("prompt50")


def test_the_loss_is_of_what_the_model_tells(folder):
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(
        json.dumps({**record, "model": {"labels": ["O", "B-x"], "labelled": "words"}})
    )
    assert "Loss (nats per word)" in Page(render(folder)).text


def test_nothing_of_the_run_is_ever_markup(folder):
    text = render(folder)
    page = Page(text)
    assert page.text.count(EVIL) >= 6
    assert "img" not in page.tags
    assert "alert(" not in "".join(re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL))
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_it_needs_nothing_from_outside(folder):
    page = Page(render(folder))
    assert not {"link", "iframe", "object", "embed", "img", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href", "srcset", "action")]
    text = render(folder)
    assert not re.search(r"https?://|url\(|@import", text)
    assert "default-src 'none'" in text


def test_curves_carry_their_values(folder):
    found = re.findall(r'<script type="application/json">(.*?)</script>', render(folder), re.DOTALL)
    training, validation = json.loads(found[0])
    assert [(step, value) for step, value, *_ in training] == [
        (step, 100 / step) for step in range(10, 110, 10)
    ]
    assert [(step, value) for step, value, *_ in validation] == [(50, 2.2), (100, 1.1)]


def test_an_empty_folder_has_a_report(tmp_path):
    page = Page(render(tmp_path))
    assert "No step has been logged yet" in page.text
    assert tmp_path.name in page.text


# What stands in one file alone, and what a second file tells too.
ALONE = {
    "metrics.csv": "12,345",
    "samples.jsonl": "prompt100",
    "config.yaml": "d_model: 256",
    "run.json": "f00d",
}
TWICE = "0.98765"


@pytest.mark.parametrize("missing", [*ALONE, "evaluation.json", "results.json"])
@pytest.mark.parametrize("content", [None, "", "\x00{[", "[1]", "{}"])
def test_missing_empty_and_damaged_files_do_no_harm_to_the_others(folder, missing, content):
    (folder / missing).unlink()
    if content is not None:
        (folder / missing).write_text(content)
    page = Page(render(folder))
    for part in (TWICE, *(part for name, part in ALONE.items() if name != missing)):
        assert part in page.text, part
    assert missing not in ALONE or ALONE[missing] not in page.text


def test_a_damaged_file_is_named(folder):
    (folder / "run.json").write_text("{")
    assert "run.json can't be read" in Page(render(folder)).text


def test_figures_that_are_not_finite_do_no_harm(tmp_path):
    log = MetricsCSV(LoggedRun(tmp_path, "id", "name", {}))
    for step, loss in enumerate((math.nan, math.inf, 1.0, -math.inf)):
        log.log_metrics({"train/loss": loss, "tokens_per_second": loss, "mfu": loss}, step)
    page = Page(render(tmp_path))
    assert page.tags.count("svg") == 3


def test_a_long_run_has_a_small_report(tmp_path):
    lines = [f"{step},{step},{1 / step!r},,,,0.001,1.0,1000.0,0.5,0.0\n" for step in range(1, 50_001)]
    MetricsCSV(LoggedRun(tmp_path, "id", "name", {})).log_metrics({"train/loss": 1.0}, 0)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.writelines(lines)
    assert len(render(tmp_path)) < 400_000


def test_a_torn_sample_is_left_out_and_odd_line_ends_are_not(tmp_path):
    text = "a\u2028b\x85c\r\nd"
    line = json.dumps({"step": 1, "prompt": "p", "text": text}, ensure_ascii=False)
    (tmp_path / "samples.jsonl").write_text(line + "\n" + line[:20], encoding="utf-8")
    assert read_samples(tmp_path / "samples.jsonl") == [{"step": 1, "prompt": "p", "text": text}]


def test_unique_keeps_the_first_of_equals():
    assert unique([{"a": 1}, {"b": 2}, {"a": 1}]) == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (0.123456789, "0.12346"),
        (123456.7, "123,457"),
        (True, "true"),
        (None, "null"),
        (math.nan, "nan"),
    ],
)
def test_figures_for_reading(value, text):
    assert figure(value) == text


def test_it_can_be_read_on_a_phone_by_keys_and_by_axe(folder, browser):
    page = browser.new_page(viewport=PHONE, color_scheme="dark")
    page.goto(write_report(folder).as_uri())
    assert faults(page) == []
    assert width_beyond(page) == 0
    chart = page.locator(".chart").first
    chart.get_by_role("img").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert chart.locator(".read").inner_text() == "step 20: training 5"
    page.keyboard.press("ArrowLeft")
    assert chart.locator(".read").inner_text() == "step 10: training 10"
    page.context.close()
