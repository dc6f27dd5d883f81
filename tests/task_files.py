"""Local tasks of lm-evaluation-harness, one of each kind, made of nothing but files."""

import json
import random
from pathlib import Path

TASKS = {
    "kinds": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - metric: acc
  - metric: acc_norm
""",
    "prose": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
""",
    "lines": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{written}}"
generation_kwargs:
  until: ["e"]
  max_gen_toks: 12
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
""",
}
WORDS = ("def", "return", "the", "spam", "eggs", "é", "class", "import", "for", "in", "a", "b")


def _texts(seed: int, length: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def write_tasks(folder: Path) -> Path:
    """Write a multiple-choice task, one of perplexity and one of writing; some texts outgrow a small context."""
    docs = [
        {
            "question": _texts(n, 2 + 4 * (n % 6)),
            "choices": [" " + _texts(100 * n + c, 1 + c) for c in range(4)],
            "answer": n % 4,
            "text": _texts(n + 1, 3 + 9 * (n % 5)),
            "written": "spam",
        }
        for n in range(18)
    ]
    docs[3]["question"] = "ends with a space "
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, docs)))
    for name, body in TASKS.items():
        head = (
            f"task: {name}\ndataset_path: json\ntest_split: test\n"
            f"dataset_kwargs:\n  data_files:\n    test: {folder}/docs.jsonl\n  cache_dir: {folder}/cache\n"
        )
        (folder / f"{name}.yaml").write_text(head + body)
    return folder
