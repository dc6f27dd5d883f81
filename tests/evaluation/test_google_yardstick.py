"""Google's official client against a stand-in of the service's REST interface."""

import json
import re
from collections import Counter

import pytest
from seqeval import metrics as seqeval
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from llm.cli.main import main
from llm.errors import ConfigError, DataError
from llm.evaluation.google import (
    GoogleLanguage,
    judged_labels,
    kinds_of,
    label_of_categories,
    label_of_sentiment,
)
from tests.evaluation.stand_in import standing_in

GOOD = ("good", "best", "love", "fun", "wit", "moving", "great")
BAD = ("bad", "dull", "worst", "awful", "fail", "tire", "no ")


# What the stand-in finds: PERSON, LOCATION and WORK_OF_ART by name, and a LOCATION by a common noun.
ENTITIES = ((r"Ada( Byron)?", 1, 1), (r"New York|Rome", 2, 1), (r"Notes", 5, 1), (r"city", 2, 2))


def score(text):
    return (
        sum(text.lower().count(word) for word in GOOD) - sum(text.lower().count(word) for word in BAD)
    ) / 10


class Language:
    """What the service's REST interface does, as far as it is documented; enums travel as numbers."""

    def __init__(self, *troubles):
        self.troubles = list(troubles)
        self.asked = Counter()

    def __call__(self, path, body, headers):
        assert "Authorization" not in headers
        if self.troubles:
            status = self.troubles.pop(0)
            return status, {}, {"error": {"code": status, "message": "not now", "status": "X"}}
        assert body["document"]["type"] == 1
        method, text = path.partition("?")[0], body["document"]["content"]
        self.asked[method] += 1
        return 200, {}, getattr(self, method.rpartition(":")[2])(text, body)

    def analyzeSentiment(self, text, body):
        return {
            "documentSentiment": {"score": score(text), "magnitude": 0.5},
            "language": "en",
            "sentences": [],
        }

    def analyzeEntities(self, text, body):
        assert body["encodingType"] == 3
        found = [
            {
                "name": found[0],
                "type": type_,
                "salience": 0.5,
                "mentions": [{"text": {"content": found[0], "beginOffset": found.start()}, "type": by_name}],
            }
            for pattern, type_, by_name in ENTITIES
            for found in re.finditer(pattern, text)
        ]
        return {"entities": found, "language": "en"}

    def classifyText(self, text, body):
        name = "/Arts & Entertainment/Movies" if "film" in text else "/Science/Physics"
        return {"categories": [{"name": "/Else", "confidence": 0.2}, {"name": name, "confidence": 0.8}]}


def test_what_the_service_says_comes_through_its_client():
    language = Language()
    with standing_in(language) as address:
        service = GoogleLanguage(base_url=address)
        (said,) = service.sentiment(["a good film, é"])
        assert said == {"score": pytest.approx(0.1), "magnitude": 0.5}
        (found,) = service.entities(["é by Ada"])
        assert found == {"entities": [{"name": "Ada", "type": "PERSON", "mentions": [[5, "Ada", "PROPER"]]}]}
        (told,) = service.categories(["a film"])
        assert label_of_categories(told, ["movies", "physics"]) == "movies"
    assert set(language.asked) == {
        f"/v1/documents:{m}" for m in ("analyzeSentiment", "analyzeEntities", "classifyText")
    }


def test_what_fails_for_now_is_asked_again_and_answers_are_kept(tmp_path):
    language = Language(429, 503, 500)
    with standing_in(language) as address:
        first = GoogleLanguage(tmp_path, address, concurrency=1)
        assert len(first.sentiment(["good", "bad", "good"])) == 3
        again = GoogleLanguage(tmp_path, address, price=1.0)
        assert again.sentiment(["good", "bad"]) == first.sentiment(["good", "bad"])
    assert language.asked.total() == 2
    assert (again.n_texts, again.n_kept) == (2, 2)
    assert "2 units of 1,000 characters, 0.0020 in all" in again.cost()


def test_a_refused_text_is_told_from_a_service_that_fails(tmp_path):
    with standing_in(Language(400)) as address:
        (answer,) = GoogleLanguage(base_url=address).categories(["short"])
    assert label_of_categories(answer, ["movies"]) == "(refused)"
    with standing_in(Language(*[503] * 99)) as address, pytest.raises(DataError, match="no answer"):
        GoogleLanguage(base_url=address, timeout=0.6).sentiment(["good"])
    with standing_in(Language(403)) as address, pytest.raises(ConfigError, match="refuses"):
        GoogleLanguage(base_url=address).sentiment(["good"])


def test_without_credentials_nothing_is_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    with pytest.raises(ConfigError, match="credentials"):
        GoogleLanguage()
    with pytest.raises(ConfigError, match="looks like"):
        GoogleLanguage(base_url="127.0.0.1:80")


@pytest.mark.parametrize(
    ("value", "label"), [(0.1, "good"), (-0.1, "bad"), (0.0, "good"), (0.4, "good"), (-0.4, "bad")]
)
def test_the_sign_of_a_score_is_its_label(value, label):
    labels = {"positive": "good", "negative": "bad", "neutral": None}
    assert label_of_sentiment({"score": value}, labels, 0.25) == label
    near = "so-so" if abs(value) <= 0.25 else label
    assert label_of_sentiment({"score": value}, labels | {"neutral": "so-so"}, 0.25) == near


def test_figures_are_scikit_learns():
    targets = ["a", "b", "c", "a", "b", "b"]
    told = ["a", "c", "c", "(another)", "b", "a"]
    found = judged_labels(list("uvwxyz"), targets, told, [{}] * 6)
    assert found.metrics["accuracy"] == pytest.approx(accuracy_score(targets, told))
    assert found.metrics["macro_f1"] == pytest.approx(
        f1_score(targets, told, average="macro", labels=["a", "b", "c"])
    )
    assert found.metrics["majority"] == 0.5
    names = ["a", "b", "c", "(another)"]
    assert found.details["confusion"] == confusion_matrix(targets, told, labels=names).tolist()


def test_our_labelled_texts_are_scored(shared_data, tmp_path, monkeypatch, capsys):
    path = shared_data / "labelled/sentiment.test.jsonl"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    # A text that stands there twice is scored once.
    lines = [json.loads(line) for line in dict.fromkeys(path.read_text().splitlines())][:150]
    small = tmp_path / "some.jsonl"
    small.write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.chdir(tmp_path)
    with standing_in(Language()) as address:
        words = [f"google_nl.base_url={address}", "data=jsonl", f"data.paths={small}", "data.label=label"]
        assert main(["evaluate", "model=google_nl", *words]) == 0
        assert main(["evaluate", "model=google_nl", *words, "google_nl.negative=bad"]) == 2
    assert "google_nl.negative" in capsys.readouterr().err
    (entry,) = json.loads((tmp_path / "answers/google_nl/evaluation.json").read_text())
    told = ["positive" if round(score(line["text"]), 6) >= 0 else "negative" for line in lines]
    assert entry["metrics"]["accuracy"] == pytest.approx(
        accuracy_score([line["label"] for line in lines], told)
    )
    assert entry["examples"] == 150


def test_it_stands_beside_ones_own_classifier(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [
        {"text": f"{'good' if n % 3 else 'awful'} number {n}", "label": "positive" if n % 3 else "negative"}
        for n in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = ["data=jsonl", "data.paths=rows.jsonl", "data.label=label"]
    words = [word for word in tiny if not word.startswith("data")]
    sizes = ["data.batch_size=4", "data.micro_batch_size=4", "samples.prompts=[]"]
    assert main(["train", *words, *data, *sizes, "task=classification", "name=c", "trainer.max_steps=2"]) == 0
    shards = next(word for word in tiny if word.startswith("shards_dir="))
    with standing_in(Language()) as address:
        capsys.readouterr()
        service = ["model=google_nl", f"google_nl.base_url={address}"]
        assert main(["evaluate", "run=runs/c", *service, "eval=[classification]", *data, shards]) == 0
    out = capsys.readouterr().out
    assert "accuracy: c less google_nl is" in out
    page = (tmp_path / "runs/evaluation.html").read_text()
    assert page.count("a column what it was told as") == 2
    assert "Share that is right" in page


SENTENCES = [
    (["Ada", "Byron", "saw", "New", "York", "."], ["B-per", "I-per", "O", "B-loc", "I-loc", "O"]),
    (["é", "Rome", "is", "a", "city"], ["O", "B-loc", "O", "O", "O"]),
    (["Byron", "read", "Notes"], ["B-per", "O", "B-work"]),
    (["NotesAda", ",", "Rome's", "Ada"], ["O", "O", "B-loc", "O"]),
]
TOLD = [
    ["B-per", "I-per", "O", "B-loc", "I-loc", "O"],
    ["O", "B-loc", "O", "O", "O"],
    ["O", "O", "B-work"],
    ["B-work", "O", "B-loc", "B-per"],
]


def test_entities_are_scored_against_tags_as_seqeval_does(tmp_path, monkeypatch, capsys):
    lines = ["\n".join(map(" ".join, zip(*sentence, strict=True))) for sentence in [*SENTENCES, SENTENCES[0]]]
    (tmp_path / "a.conll").write_text("\n\n".join(lines))
    monkeypatch.chdir(tmp_path)
    with standing_in(Language()) as address:
        words = [
            "google_nl.task=entities",
            f"google_nl.base_url={address}",
            "data=conll",
            "data.paths=a.conll",
        ]
        named = ["google_nl.kinds={WORK_OF_ART: work}"]
        assert main(["evaluate", "model=google_nl", *words, *named]) == 0
        assert main(["evaluate", "model=google_nl", *words, "google_nl.kinds={ART: work}"]) == 2
        assert "google_nl.kinds: ART: work: the service's types are" in capsys.readouterr().err
        assert main(["evaluate", "model=google_nl", *words, "eval=[classification]"]) == 2
        assert "tags of words alone, eval=tagging" in capsys.readouterr().err
    (entry,) = json.loads((tmp_path / "answers/google_nl/evaluation.json").read_text())
    rows = [
        json.loads(line)
        for line in (tmp_path / "answers/google_nl" / entry["outputs"]).read_text().splitlines()
    ]
    # A sentence that comes twice is asked and counted once, as a run counts it.
    assert [row["prediction"] for row in rows] == TOLD
    assert [row["text"] for row in rows] == [" ".join(words) for words, _ in SENTENCES]
    right = [tags for _, tags in SENTENCES]
    for name in ("precision", "recall", "f1"):
        assert entry["metrics"][name] == pytest.approx(getattr(seqeval, f"{name}_score")(right, TOLD))
    assert entry["evaluation"] == "tagging"


def test_a_kind_is_that_whose_name_a_type_begins_with():
    kinds = kinds_of(["O", "B-PER", "I-organization"], {"EVENT": "PER"})
    assert kinds == {"PERSON": "PER", "ORGANIZATION": "organization", "EVENT": "PER"}
    with pytest.raises(ConfigError, match="mark no entities"):
        kinds_of(["NN", "VB"], {})


@pytest.mark.parametrize(
    ("words", "says"), [([], "texts with labels"), (["eval=[perplexity]"], "labels of texts alone")]
)
def test_wrong_commands_get_one_clear_message(words, says, capsys):
    assert main(["evaluate", "model=google_nl", *words]) == 2
    assert says in capsys.readouterr().err
