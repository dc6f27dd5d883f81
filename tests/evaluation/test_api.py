"""Endpoints through the official client: our own server, and a stand-in that fails in every way."""

import json
import re
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from llm.cli.main import main
from llm.errors import ConfigError, DataError
from llm.evaluation.api import Ask, Endpoint
from llm.evaluation.api_model import ApiModel, asked, letter_of
from llm.evaluation.harness import Tasks, run_tasks
from llm.evaluation.harness_model import LiveModel
from llm.serve import Served
from tests.evaluation.stand_in import standing_in
from tests.serve.small_server import TOKENIZER, serving, small

ROOT = Path(__file__).parents[2]
KEY = "sk-this-key-is-nobodys-0123456789"


class Script:
    """A chat endpoint that first does what `troubles` say of each prompt, then answers."""

    def __init__(self, *troubles, text="B"):
        self.troubles, self.text = troubles, text
        self.asked = Counter()
        self.times = []
        self.lock = threading.Lock()

    def __call__(self, path, body, headers):
        prompt = body["messages"][0]["content"]
        with self.lock:
            trouble = self.troubles[self.asked[prompt]] if self.asked[prompt] < len(self.troubles) else 200
            self.asked[prompt] += 1
            self.times.append(time.monotonic())
        if trouble == "slow":
            time.sleep(1.0)
        if isinstance(trouble, tuple):
            return trouble
        if trouble not in (200, "slow"):
            return trouble, {}, {"error": {"message": f"no; you sent {headers['Authorization']}"}}
        content = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": self.text},
        }
        usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
        return (
            200,
            {},
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [content],
                "usage": usage,
            },
        )


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def endpoint(address, folder=None, **keys):
    return Endpoint("m", folder, f"{address}/v1", **keys)


def test_what_fails_is_tried_again_until_it_is_answered():
    script = Script(429, 500, "slow", 503)
    with standing_in(script) as address:
        assert endpoint(address, timeout=0.5).answer([Ask("q", 8)]) == ["B"]
    assert script.asked["q"] == 5


def test_a_rate_limit_is_waited_out_as_long_as_it_says():
    script = Script((429, {"Retry-After": "2"}, {"error": {"message": "slow down"}}))
    with standing_in(script) as address:
        assert endpoint(address).answer([Ask("q", 8)]) == ["B"]
    assert script.times[1] - script.times[0] >= 2.0


def test_answers_are_kept_and_the_rest_alone_is_asked_again(tmp_path):
    asks = [Ask(f"question {n}", 8) for n in range(6)]
    script = Script()
    broken = {"question 4"}

    def answer(path, body, headers):
        no = body["messages"][0]["content"] in broken
        return (500, {}, {"error": {"message": "no"}}) if no else script(path, body, headers)

    with standing_in(answer) as address:
        with pytest.raises(DataError, match="goes on from there"):
            endpoint(address, tmp_path, max_retries=0, concurrency=1).answer(asks)
        assert {f"question {n}" for n in range(4)} <= set(script.asked)
        broken.clear()
        again = endpoint(address, tmp_path)
        assert again.answer(asks) == ["B"] * 6
    assert set(script.asked.values()) == {1}
    assert again.usage.kept >= 4
    assert again.usage.read == 60 > again.usage.read_now


def test_a_killed_process_has_kept_what_was_answered(python, tmp_path):
    script = Script()
    reached = threading.Event()

    def answer(path, body, headers):
        if script.asked.total() >= 5:
            reached.set()
            time.sleep(1.0)
        return script(path, body, headers)

    with standing_in(answer) as address:
        code = (
            "from pathlib import Path; from llm.evaluation.api import Ask, Endpoint; "
            f"Endpoint('m', Path({str(tmp_path)!r}), '{address}/v1', concurrency=1)"
            ".answer([Ask(f'question {n}', 8) for n in range(40)])"
        )
        process = subprocess.Popen([python, "-c", code], cwd=ROOT)
        assert reached.wait(120)
        process.kill()
        process.wait()
        time.sleep(1.2)  # until the last request is no longer under way
        kept = len(list(tmp_path.rglob("*.json")))
        assert kept == 5
        again = endpoint(address, tmp_path)
        assert again.answer([Ask(f"question {n}", 8) for n in range(5)]) == ["B"] * 5
    assert again.usage.kept == 5


def test_the_same_question_is_asked_once_unless_chance_has_a_say(tmp_path):
    script = Script()
    with standing_in(script) as address:
        one = endpoint(address, tmp_path)
        assert one.answer([Ask("q", 8)] * 3) == ["B"] * 3
        assert script.asked["q"] == 1
        one.answer([Ask("r", 8, temperature=0.7)] * 3)
        assert script.asked["r"] == 3
        endpoint(address, tmp_path).answer([Ask("r", 8, temperature=0.7)] * 3)
        assert script.asked["r"] == 3


def test_another_question_model_or_length_is_another_answer(tmp_path):
    script = Script()
    with standing_in(script) as address:
        for ask, model in (
            (Ask("q", 8), "m"),
            (Ask("q", 9), "m"),
            (Ask("q", 8), "n"),
            (Ask("q", 8, ("x",)), "m"),
        ):
            Endpoint(model, tmp_path, f"{address}/v1").answer([ask])
    assert script.asked["q"] == 4


def test_a_damaged_answer_is_asked_for_again(tmp_path):
    script = Script()
    with standing_in(script) as address:
        endpoint(address, tmp_path).answer([Ask("q", 8)])
        (kept,) = tmp_path.rglob("*.json")
        kept.write_text(kept.read_text()[:-9])
        assert endpoint(address, tmp_path).answer([Ask("q", 8)]) == ["B"]
    assert script.asked["q"] == 2


@pytest.mark.parametrize(
    ("status", "kind"), [(401, ConfigError), (404, ConfigError), (400, ConfigError), (500, DataError)]
)
def test_the_key_is_neither_written_nor_shown(status, kind, tmp_path):
    with standing_in(Script(200, status, status)) as address:
        one = endpoint(address, tmp_path, max_retries=0)
        one.answer([Ask("q", 8)])
        with pytest.raises(kind) as raised:
            one.answer([Ask("q", 9)])
    assert "you sent" in str(raised.value)
    assert KEY not in str(raised.value)
    assert KEY not in repr(one)
    assert all(KEY not in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_without_a_key_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        Endpoint("m")
    monkeypatch.setenv("MINE", KEY)
    assert Endpoint("m", key_env="MINE")
    assert Endpoint("m", key_env=None)


def test_the_cost_is_told():
    with standing_in(Script()) as address:
        one = endpoint(address, price_in=2.0, price_out=10.0)
        one.answer([Ask(f"q{n}", 8) for n in range(5)])
    # 5 x (10 x 2 + 2 x 10) millionths.
    assert "50 tokens read, 10 written; 0.0002, of which 0.0002 now" in one.cost()


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", 1),
        (" (C)", 2),
        ("**A**", 0),
        ("B. because", 1),
        ("The answer is D.", 3),
        ("A good answer is C", 2),
        ("A: no. So B", 0),
        ("I can't tell", None),
        ("E", None),
        ("", None),
    ],
)
def test_letters_are_read_from_answers(answer, letter):
    assert letter_of(answer, 4) == letter


def test_choices_are_asked_by_letters():
    text = asked([("Where?", " here"), ("Where?", " there")])
    assert text.startswith("Where?\n\nA. here\nB. there\n\n")
    assert asked([("He", " sat"), ("She", " sat")]).startswith("A. He sat\nB. She sat\n")
    with pytest.raises(ConfigError, match="2 to 26"):
        asked([("Where?", " here")])


def test_choices_are_scored_by_the_letter_that_is_named(task_folder):
    with standing_in(Script(text="B")) as address:
        model = ApiModel(endpoint(address), answer_tokens=8, seed=0)
        found = run_tasks(model, Tasks(["kinds"], str(task_folder)), seed=0)["kinds"]
    docs = [json.loads(line) for line in (task_folder / "docs.jsonl").read_text().splitlines()]
    share = sum(doc["answer"] == 1 for doc in docs) / len(docs)
    assert found.metrics == pytest.approx({"acc": share, "acc_norm": share})
    assert model.n_guessed == 0


def test_answers_without_a_letter_are_guesses(task_folder):
    with standing_in(Script(text="who knows")) as address:
        models = [ApiModel(endpoint(address), answer_tokens=8, seed=seed) for seed in (0, 0, 1)]
        tasks = Tasks(["kinds"], str(task_folder))
        rows = [run_tasks(model, tasks, seed=0)["kinds"].rows for model in models]
    assert models[0].n_guessed == 18
    scores = [[row["scores"]["acc"] for row in some] for some in rows]
    assert scores[0] == scores[1] != scores[2]


def test_likelihoods_of_texts_are_refused(task_folder):
    model = ApiModel(endpoint("http://127.0.0.1:9"), answer_tokens=8, seed=0)
    with pytest.raises(ConfigError, match="prose"):
        run_tasks(model, Tasks(["prose"], str(task_folder)), seed=0)


def test_our_own_server_writes_what_the_live_model_writes(task_folder):
    net = small()
    with serving(Served("tiny", net, TOKENIZER, rows=4)) as address:
        api = Endpoint("tiny", base_url=f"{address}/v1", kind="completions")
        tasks = Tasks(["lines"], str(task_folder))
        theirs = run_tasks(ApiModel(api, answer_tokens=8, seed=0), tasks, seed=0)["lines"]
    ours = run_tasks(LiveModel(net, TOKENIZER, batch_size=4, seed=0), tasks, seed=0)["lines"]
    assert [row["answers"] for row in theirs.rows] == [row["answers"] for row in ours.rows]
    assert len({str(row["answers"]) for row in ours.rows}) > 5


def test_an_endpoint_stands_beside_ones_own_run(task_folder, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *tiny, "name=a", "trainer.max_steps=2"]) == 0
    script = Script(text="C")
    with standing_in(script) as address:
        words = [
            "model=api",
            f"api.base_url={address}/v1",
            "api.model=big/one",
            "eval=lm_eval",
            "api.price_in=1",
        ]
        words += ["lm_eval.tasks=[kinds]", f"lm_eval.include_path={task_folder}"]
        capsys.readouterr()
        assert main(["evaluate", "run=runs/a", *words]) == 0
        shown = capsys.readouterr().out
        count = sum(script.asked.values())
        assert main(["evaluate", *words]) == 0
        assert sum(script.asked.values()) == count == 18
        again = capsys.readouterr().out
    assert re.search(r"acc: a less big/one is \S+ \(", shown)
    assert "named by their letters" in shown
    assert "0 of them answered before" in shown
    assert "18 of them answered before" in again
    (entry,) = json.loads((tmp_path / "answers/big_one/evaluation.json").read_text())
    assert (entry["evaluation"], entry["data"], entry["checkpoint"]) == ("lm_eval", "kinds", "big/one")
    assert len((tmp_path / "answers/big_one" / entry["outputs"]).read_text().splitlines()) == 18
    assert "big/one" in (tmp_path / "runs/evaluation.html").read_text()
    assert all(
        KEY not in path.read_text("utf-8", "replace") for path in tmp_path.rglob("*") if path.is_file()
    )
    assert KEY not in shown + again


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model=api"], "needs tasks"),
        (["model=api", "eval=[code]"], "tasks alone"),
        (["eval=lm_eval", "lm_eval.tasks=[kinds]"], "run: this is needed"),
        (["model=apo"], "Did you mean api?"),
    ],
)
def test_wrong_commands_get_one_clear_message(words, says, capsys):
    assert main(["evaluate", *words]) == 2
    assert says in capsys.readouterr().err
