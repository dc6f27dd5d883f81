"""The page of evaluations: every figure is there, it is safe, and it opens offline."""

import re

from llm.report.scores import Board, Figure, Pair, confusions, reliability_chart, write_scores

EVIL = "</script><script>alert(1)</script>"
ENTRY = {
    "labels": [EVIL, "bad"],
    "confusion": [[7, 1], [2, 5]],
    "reliability": [
        {"least": 0.4, "to": 0.6, "texts": 5, "confidence": 0.5, "accuracy": 0.6},
        {"least": 0.8, "to": 1.0, "texts": 10, "confidence": 0.9, "accuracy": 0.8},
    ],
}


def board(entries):
    return Board(
        title="classification on reviews (all, 15 examples)",
        models=["a", EVIL],
        figures={"accuracy": [Figure(0.8, 0.71, 0.88), Figure(0.75)], "loss": [Figure(0.5), None]},
        pairs=[Pair("accuracy", "a", EVIL, 0.05, -0.0125, 0.1125, 0.214)],
        entries=entries,
        notes=["They were asked in another way."],
    )


def test_the_page_holds_every_figure_and_nothing_alive(tmp_path):
    text = write_scores([board([ENTRY, {}])], tmp_path / "page.html").read_text()
    assert "<script>alert" not in text
    assert not re.search(r"https?://|url\(|@import", text)
    for figure in ("0.8", "0.71 to 0.88", "0.05", "-0.0125 to 0.1125", "0.214", "0.75"):
        assert figure in text
    assert "They were asked in another way." in text
    assert [int(cell) for cell in re.findall(r">(\d+)</td>", text)] == [7, 1, 2, 5]


def test_calibration_is_drawn_beside_the_diagonal():
    chart = reliability_chart(board([ENTRY, {}]))
    drawn = {curve.name: [point[:2] for point in curve.points] for curve in chart.curves}
    assert drawn == {"a": [(0.5, 0.6), (0.9, 0.8)], "as sure as right": [(0.5, 0.5), (1.0, 1.0)]}
    assert len(chart.x_ticks) >= 4
    assert reliability_chart(board([{}, {}])) is None


def test_models_without_labels_have_no_matrix():
    assert confusions(board([ENTRY, {}])) == [("a", ENTRY["labels"], ENTRY["confusion"])]
