"""Small sets for each task of fine-tuning: a function a task writes one into a folder and gives the words that train on it."""

import json

# What these words replace of a tiny run's.
OWN = ("data=", "data.paths", "model")
SHAPE = (
    "model.d_model=32",
    "model.n_layers=2",
    "model.n_heads=2",
    "model.d_ff=64",
    "model.context_length=32",
)


def words_of(task, tiny, folder, start=None):
    """The words that train a tiny model on a small set of the task of a function below, on from the run `start` if any."""
    kept = [word for word in tiny if not word.startswith(OWN)]
    words = [*kept, f"task={task.__name__}", *task(folder), *SHAPE]
    if start is None:
        return words
    return [*(word for word in words if not word.startswith(("model", "tokenizer"))), f"init_from={start}"]


def start_of(task, tiny, folder):
    """The words that train what `task` goes on from: a model of texts of the same shape."""
    brought = [word for word in task(folder) if word.startswith("model")]
    return [*(word for word in tiny if not word.startswith("model")), *brought, *SHAPE]


def classification(folder):
    rows = [{"text": f"{'so good' if n % 2 else 'too bad'} {n}", "label": n % 2} for n in range(60)]
    return ["model=bert_nano", "data=jsonl", "data.label=label", jsonl(folder, rows)]


def regression(folder):
    rows = [{"text": f"{'so good' if n % 2 else 'too bad'} {n}", "label": n % 7} for n in range(60)]
    return ["model=bert_nano", "data=jsonl", "data.label=label", jsonl(folder, rows)]


def tagging(folder):
    # Longer than the context: windows of a sentence are samples of their own.
    rows = [{"words": [f"w{n}" for n in range(k, k + 40)], "tags": ["O", "B-x"] * 20} for k in range(30)]
    return ["model=bert_nano", "data=jsonl", "data.text=words", "data.label=tags", jsonl(folder, rows)]


def qa(folder):
    paragraphs = [
        {
            "context": f"box {n} holds red {n % 10}",
            "qas": [{"id": n, "question": "colour?", "answers": [{"text": "red", "answer_start": 0}]}],
        }
        for n in range(40)
    ]
    for paragraph in paragraphs:
        paragraph["qas"][0]["answers"][0]["answer_start"] = paragraph["context"].index("red")
    (folder / "qa.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return ["model=bert_nano", "data=squad", f"data.paths=[{folder}/qa.json]"]


def summarization(folder):
    rows = [{"source": f"{n} and more of it", "target": f"{n}"} for n in range(60)]
    return ["model=t5_nano", "data=pairs", jsonl(folder, rows)]


def seq2seq(folder):
    # On a decoder: several pairs in a row.
    rows = [{"source": f"{n} of it", "target": f"{n}"} for n in range(80)]
    return ["model=nano", "model.n_kv_heads=2", "model.head_dim=16", "data=pairs", jsonl(folder, rows)]


def chat(folder):
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{n}?"},
                {"role": "assistant", "content": "a" * (n % 9 + 1)},
            ]
        }
        for n in range(80)
    ]
    return ["model=nano", "model.n_kv_heads=2", "model.head_dim=16", "data=chat", jsonl(folder, rows)]


def dpo(folder):
    rows = [{"prompt": f"{n}?", "chosen": "a" * (n % 9 + 1), "rejected": f"{n}"} for n in range(80)]
    return ["model=nano", "model.n_kv_heads=2", "model.head_dim=16", "data=preferences", jsonl(folder, rows)]


def jsonl(folder, rows):
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return f"data.paths=[{folder}/rows.jsonl]"


TASKS = (classification, regression, tagging, qa, summarization, seq2seq, chat, dpo)
