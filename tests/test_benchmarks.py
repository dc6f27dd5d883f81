"""The benchmarks run: each in its quick mode, whose figures mean nothing, and the arithmetic that they share."""

import itertools
import json
import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from llm.data.sources.stdlib import stdlib_folder

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def timing(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return __import__("timing")


def quick(script: str, *words: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(BENCHMARKS / f"{script}.py"), "--quick", "--threads=1", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cells(output: str, name: str) -> list[str]:
    """The cells of a table's row that begins with `name`."""
    (line,) = (line for line in output.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_index_names_every_script_and_page():
    index = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    scripts = {f"`{path.name}`" for path in BENCHMARKS.glob("*.py")}
    pages = {f"({path.name})" for path in BENCHMARKS.glob("*.md") if path.name != "README.md"}
    assert {name for name in scripts | pages if name not in index} == set()


def test_turns_go_backwards_every_other_round(timing):
    order = []

    def contestant(name):
        def turn():
            order.append(name)
            return {"speed": float(len(order))}

        return turn

    results = timing.interleave({name: contestant(name) for name in "ab"}, rounds=3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [one.median("speed") for one in results] == [4.0, 3.0]


def test_ratios_are_of_the_same_round(timing):
    own = timing.Result("own", [{"speed": 2.0}, {"speed": 30.0}, {"speed": 4.0}])
    reference = timing.Result("reference", [{"speed": 1.0}, {"speed": 10.0}, {"speed": 4.0}])
    assert timing.paired_ratio(own, reference, "speed") == 2.0


def test_a_contestant_that_lacks_something_is_left_out_with_its_reason(timing):
    command = [sys.executable, "-c", f"print('no such package'); exit({timing.MISSING})"]
    (result,) = timing.interleave({"one": lambda: timing.measured(command, 1)}, rounds=2)
    assert result.rounds == []
    assert timing.notes([result]) == "one was left out: no such package"


def test_figures_are_read_from_the_process_and_measured_from_outside(timing):
    code = f"held = bytearray(150_000_000); print({timing.SAID!r} + {json.dumps({'speed': 3})!r})"
    figures = timing.measured([sys.executable, "-c", code], 1)
    assert figures["speed"] == 3
    # Before it runs its program, a child counts what its parent held.
    parent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 150e6 < figures["peak_bytes"] < max(parent, 150e6 + 1e9) + 1e6
    assert figures["seconds"] > 0


def test_a_contestant_that_fails_stops_the_benchmark_with_its_output(timing):
    with pytest.raises(RuntimeError, match="what went wrong"):
        timing.measured([sys.executable, "-c", "print('what went wrong'); exit(1)"], 1)


@pytest.mark.slow
def test_throughput():
    assert cells(quick("throughput"), "Hugging Face GPT2, bare loop, float32")[2] == "1.00"


@pytest.mark.slow
def test_decoding():
    pytest.importorskip("transformers")
    rows = [line for line in quick("decoding").splitlines() if line.startswith("| float32 |")]
    assert len(rows) == 2
    assert all(row.endswith("| yes |") for row in rows)


def test_ceilings_say_the_least_time_of_a_step():
    rows = [line for line in quick("ceilings").splitlines() if line.startswith("| a step of")]
    assert len(rows) == 3
    assert all(float(cell) > 0 for row in rows for cell in row.split("|")[2:4])


@pytest.mark.slow
def test_overhead():
    output = quick("overhead")
    assert float(cells(output, "train.py")[1]) > 0
    assert float(cells(output, "bare loop")[1]) > 0


@pytest.mark.slow
def test_shakespeare_scores_both_on_the_same_bytes(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{n} times {n} is {n * n}.\n" for n in range(4000)))
    words = ("--words", "model.d_model=64", "model.n_layers=1", "tokenizer=byte")
    output = quick("shakespeare", f"--text={text}", *words)
    recipe, ours = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in output.splitlines()
        if "steps |" in line
    )
    assert recipe[4] == ours[4]


@pytest.mark.slow
def test_plan_is_near_what_torch_gives_out():
    _, *figures = cells(quick("plan"), "tiny")
    assert len(figures) == 6
    assert abs(float(figures[5].rstrip("%"))) <= 10


@pytest.mark.slow
def test_gpu_prints_the_plan_beside_what_it_measures():
    output = quick("gpu")
    assert "figures of a GPU are still to come" in output
    rows = [line.split("|") for line in output.splitlines() if line.startswith("| train.py |")]
    assert len(rows) == 2
    assert all(float(row[5].replace(",", "")) > 0 and row[6].strip().endswith("GB") for row in rows)


@pytest.mark.slow  # it compiles
def test_where_time_goes_names_its_groups_and_the_limit():
    output = quick("where_time_goes")
    assert cells(output, "matrix products of weights")[1].endswith("ms")
    shares = [
        int(line.split("|")[3].strip().rstrip("%")) for line in output.splitlines() if line.endswith("% |")
    ]
    assert 90 <= sum(shares) <= 110
    assert "of the" in output.splitlines()[-1]


@pytest.mark.slow
def test_serving():
    rows = [line for line in quick("serving").splitlines() if line.startswith("| llm serve, 32-true |")]
    assert len(rows) == 2


def test_the_commands_of_results_are_such_as_can_be_typed(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr("sys.argv", ["results.py", "--list"])
    __import__("results").main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(" ")]
    assert sum("train.py" in line for line in lines) == sum("evaluate.py" in line for line in lines) > 10
    for line in lines:
        # A key that is given twice is refused.
        keys = [word.partition("=")[0] for word in shlex.split(line)[2:]]
        assert len(keys) == len(set(keys)), line


@pytest.mark.slow
def test_results_makes_rows_and_the_baselines_beside_them(tmp_path, monkeypatch):
    texts = [{"text": f"{'so good' if n % 2 else 'too bad'} {n}", "label": "ny"[n % 2]} for n in range(80)]
    passage = "A box holds a ball."
    question = {"id": "1", "question": "what?", "answers": [{"text": "A box", "answer_start": 0}]}
    article = {"title": "x", "paragraphs": [{"context": passage, "qas": [question]}]}
    articles = {"version": "1.1", "data": [{**article, "title": str(n)} for n in range(4)]}
    rows = "\n".join(map(json.dumps, texts))
    # Text enough for the tokenizer's 4,096 pieces.
    library = [(stdlib_folder() / f"{name}.py").read_text() for name in ("_pydecimal", "argparse", "inspect")]
    lines = list(dict.fromkeys(line for text in library for line in text.split("\n") if line.strip()))
    chats = [
        {"messages": [{"role": "user", "content": one}, {"role": "assistant", "content": other}]}
        for one, other in itertools.pairwise(lines)
    ]
    files = {
        "corpora/austen.txt": "".join(library),
        "corpora/tinyshakespeare.txt": library[0],
        "labelled/sentiment.train.jsonl": rows,
        "labelled/sentiment.test.jsonl": rows,
        "labelled/qa.squad.json": json.dumps(articles),
        "labelled/summaries.test.jsonl": "",
        "labelled/chat.jsonl": "\n".join(map(json.dumps, chats)),
    }
    for name, text in files.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(text)
    monkeypatch.setenv("LLM_SHARED_DATA", str(tmp_path / "data"))
    names = ("sentiment.tfidf", "sentiment.random", "qa.first_words", "chat.frequencies")
    output = quick("results", *names, f"--work={tmp_path}/work")
    assert cells(output, "the commonest label")[1].startswith("0.500")
    assert cells(output, "`sentiment.random`")[3:5] == ["80", "2"]
    assert float(cells(output, "`sentiment.tfidf`: words and pairs of words by TF-IDF")[1].split()[0]) > 0.9
    # "A box holds" beside "A box": half of what is told, all of what is right.
    assert cells(output, "`qa.first_words`: the first 3 words of the passage")[1].startswith("0.667")
    # What any token is likely is worth something, and nothing that stands before it is known.
    perplexity, bits = map(
        float,
        (
            c.split()[0]
            for c in cells(output, "`chat.frequencies`: each token as often as in training answers")[1:3]
        ),
    )
    assert 100 < perplexity < 4096
    assert 1 < bits < 8
