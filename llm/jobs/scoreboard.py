"""Models side by side in what they were scored: made of scored examples, printed, and written as a page."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from llm.evaluation import Row
from llm.evaluation.result import metrics_of, scores_of
from llm.evaluation.significance import differences, same_examples
from llm.jobs.runs import table
from llm.jobs.scored import Scored
from llm.jobs.show import number
from llm.report.scores import Board, Figure, Pair

SURE = 0.05
# Figures over what a model predicted: each model has a denominator of its own, and all mean the same.
OF_PREDICTIONS = ("precision", "f1")


def boards(scored: Mapping[str, Sequence[Scored]]) -> list[Board]:
    """A board for each evaluation of each set, in the order in which they first come; models by their names."""
    kinds = dict.fromkeys(_kind(one) for some in scored.values() for one in some)
    return [
        _board(kind, {name: one for name, some in scored.items() for one in some if _kind(one) == kind})
        for kind in kinds
    ]


def _kind(one: Scored) -> tuple[str, ...]:
    return tuple(str(one.entry[name]) for name in ("evaluation", "data", "split"))


def _board(kind: tuple[str, ...], scored: Mapping[str, Scored]) -> Board:
    evaluation, data, split = kind
    known = list(dict.fromkeys(metric for one in scored.values() for metric in one.entry["metrics"]))
    pairs, notes = _pairs(scored)
    examples = " or ".join(dict.fromkeys(f"{one.entry['examples']:,}" for one in scored.values()))
    return Board(
        title=f"{evaluation} on {data} ({split}, {examples} examples)",
        models=list(scored),
        figures={metric: [_figure(one, metric) for one in scored.values()] for metric in known},
        pairs=pairs,
        entries=[one.entry for one in scored.values()],
        notes=[*notes, *_ways(scored)],
    )


def _ways(scored: Mapping[str, Scored]) -> list[str]:
    """How a model was asked, where that is another way than by likelihoods."""
    return [f"{name}: {one.entry['asked']}." for name, one in scored.items() if "asked" in one.entry]


def _figure(one: Scored, metric: str) -> Figure | None:
    if metric not in one.entry["metrics"]:
        return None
    return Figure(one.entry["metrics"][metric], *one.entry.get("intervals", {}).get(metric, ()))


def _pairs(scored: Mapping[str, Scored]) -> tuple[list[Pair], list[str]]:
    """How each two differ, and a note on each two that were not asked the same."""
    pairs: list[Pair] = []
    notes: list[str] = []
    for one, other in combinations(scored, 2):
        rows, others = scored[one].rows, scored[other].rows
        if not (rows and others):
            continue
        if same_examples(rows, others):
            pairs += _differences((one, rows), (other, others))
        else:
            notes.append(
                f"{one} and {other} were not asked the same examples, so that no difference is told."
            )
    return pairs, notes


def _differences(first: tuple[str, Sequence[Row]], second: tuple[str, Sequence[Row]]) -> list[Pair]:
    (one, rows), (other, others) = first, second
    shared = [metric for metric in metrics_of(rows) if metric in metrics_of(others)]
    scores = {metric: (scores_of(rows, metric), scores_of(others, metric)) for metric in shared}
    compared = [metric for metric in shared if len(rows) > 1 and _comparable(metric, *scores[metric])]
    if not compared:
        return []
    found = differences(*(np.stack(side, 1) for side in zip(*map(scores.get, compared), strict=True)))
    return [Pair(metric, one, other, *each) for metric, each in zip(compared, found, strict=True)]


def _comparable(metric: str, one_n2: np.ndarray, other_n2: np.ndarray) -> bool:
    """Whether a metric means the same of both: a loss per token does not where their tokenizers differ."""
    return metric.startswith(OF_PREDICTIONS) or bool((one_n2[:, 1] == other_n2[:, 1]).all())


def show_board(board: Board) -> None:
    """Print a board: a line a model, then what differs."""
    print(f"\n{board.title}")
    rows = [
        {"model": name, **{metric: _cell(figures[place]) for metric, figures in board.figures.items()}}
        for place, name in enumerate(board.models)
    ]
    print("\n".join(f"  {line}" for line in table(rows)))
    for pair in board.pairs:
        sure = "" if pair.p < SURE else ", which may be chance"
        print(
            f"  {pair.metric}: {pair.one} less {pair.other} is {number(pair.value)} "
            f"({number(pair.low)} to {number(pair.high)}), p = {pair.p:.2g}{sure}"
        )
    for note in board.notes:
        print(f"  {note}")


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    around = "" if figure.low is None else f" ({number(figure.low)} to {number(figure.high or 0.0)})"
    return number(figure.value) + around
