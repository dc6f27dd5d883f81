"""lm-evaluation-harness on the live model beside its own Hugging Face backend on the exported one."""

import random

import lm_eval.tasks
import numpy as np
import pytest
import torch

from llm.errors import ConfigError, DataError
from llm.evaluation.harness import Tasks, check, run_tasks
from llm.evaluation.harness_model import LiveModel
from llm.hub.export import About
from llm.hub.huggingface import write
from llm.model import ModelConfig, Transformer, init_weights
from llm.tokenizer import SPECIAL_TOKENS, ByteSpec
from llm.tokenizer.base import SENTINEL
from tests.small_models import shaken

SIZES = {"d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 48, "context_length": 64}
SHAPES = {
    "gpt2": {
        "norm": "layer",
        "norm_eps": 1e-5,
        "position": "learned",
        "activation": "gelu_tanh",
        "attention_bias": True,
        "mlp_bias": True,
    },
    "llama": {"n_kv_heads": 2},
}
T5 = {
    "architecture": "encoder_decoder",
    "position": "relative",
    "activation": "relu",
    "attention_scale": 1.0,
    "scale_logits": True,
}
NAMES = ["kinds", "prose", "lines"]


@pytest.fixture(autouse=True)
def unasked(monkeypatch):
    """The harness asks pip and others what is installed for seconds, which no test looks at."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


def model_of(tokenizer, seed=0, **shape):
    """A model with weights far from their small initial values, so that its answers vary."""
    net = Transformer(ModelConfig(**{**SIZES, "vocab_size": tokenizer.vocab_size, **shape})).eval()
    init_weights(net, seed=seed)
    return shaken(net, 0.2, seed)


def theirs(folder, **keys):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=5, **keys)


def evaluated(model, task_folder, names=NAMES):
    manager = lm_eval.tasks.TaskManager(include_path=str(task_folder), include_defaults=False)
    return lm_eval.simple_evaluate(model=model, tasks=list(names), task_manager=manager, bootstrap_iters=0)


def answers(found, name):
    return [sample["resps"] for sample in sorted(found["samples"][name], key=lambda sample: sample["doc_id"])]


def assert_same(ours, their, names=NAMES):
    for name in names:
        for metric, figure in their["results"][name].items():
            if isinstance(figure, float):
                assert ours["results"][name][metric] == pytest.approx(figure, rel=1e-6), (name, metric)
    for mine, other in zip(answers(ours, "kinds"), answers(their, "kinds"), strict=True):
        for (one,), (two,) in zip(mine, other, strict=True):
            assert one[0] == pytest.approx(two[0], abs=1e-5, rel=1e-6)
            assert one[1] == two[1]
    if "lines" in names:
        assert answers(ours, "lines") == answers(their, "lines")


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_decoder_scores_as_the_harness_scores_its_export(shape, task_folder, tmp_path):
    tokenizer = ByteSpec().build()
    net = model_of(tokenizer, **shape)
    write(tmp_path, net, tokenizer, About("m", tmp_path))
    ours = evaluated(LiveModel(net, tokenizer, batch_size=4, seed=0), task_folder)
    assert_same(ours, evaluated(theirs(tmp_path), task_folder))
    # They are not all alike, and the texts beyond the context are among them.
    assert len({text for ((text,),) in answers(ours, "lines")}) > 5
    assert 0 < ours["results"]["kinds"]["acc,none"] < 1


def test_an_encoder_decoder_scores_as_the_harness_scores_its_export(task_folder, tmp_path):
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    names = [*SPECIAL_TOKENS, *(SENTINEL.format(n) for n in range(3))]
    tokenizer = ByteSpec(special_tokens=tuple(names)).build()
    net = model_of(tokenizer, **T5)
    write(tmp_path, net, tokenizer, About("m", tmp_path))
    end = names[2]
    exported = AutoTokenizer.from_pretrained(tmp_path, split_special_tokens=True)
    # In training a source ends with an end of text, which the exported tokenizer leaves to its user.
    exported.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.end_of_text)]
    )
    live, names = LiveModel(net, tokenizer, batch_size=4, seed=0), ["kinds", "lines"]
    ours = evaluated(live, task_folder, names)
    their = evaluated(theirs(tmp_path, backend="seq2seq", tokenizer=exported), task_folder, names)
    assert_same(ours, their, ["kinds"])
    # Theirs lets it write as many tokens beyond max_gen_toks as its source has.
    texts = [
        (one[0][0], two[0][0])
        for one, two in zip(answers(ours, "lines"), answers(their, "lines"), strict=True)
    ]
    assert all(two.startswith(one.rstrip("\ufffd")) for one, two in texts)
    assert len({one for one, _ in texts}) > 5
    # Sources beyond the context are among them.
    assert live.n_cut > 0


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_changes_nothing(batch_size, task_folder):
    tokenizer = ByteSpec().build()
    net = model_of(tokenizer)
    ours = evaluated(LiveModel(net, tokenizer, batch_size=batch_size, seed=0), task_folder)
    assert_same(ours, evaluated(LiveModel(net, tokenizer, batch_size=4, seed=0), task_folder))


def test_examples_add_up_to_the_figures(task_folder):
    tokenizer = ByteSpec().build()
    live = LiveModel(model_of(tokenizer), tokenizer, batch_size=4, seed=0)
    results = run_tasks(live, Tasks(NAMES, str(task_folder)), seed=0)
    assert {name: set(results[name].rows[0]["scores"]) for name in NAMES} == {
        "kinds": {"acc", "acc_norm"},
        "prose": {"bits_per_byte"},
        "lines": {"exact_match"},
    }
    for name in NAMES:
        assert results[name].examples == len(results[name].rows) == 18
        assert len({row["id"] for row in results[name].rows}) == 18
        for metric in results[name].rows[0]["scores"]:
            scores = [row["scores"][metric] for row in results[name].rows]
            above, below = (sum(part) for part in zip(*scores, strict=True))
            assert above / below == pytest.approx(results[name].metrics[metric])
    assert live.n_cut > 0


def test_chance_is_left_as_it_was(task_folder):
    tokenizer = ByteSpec().build()
    live = LiveModel(model_of(tokenizer), tokenizer, batch_size=4, seed=0)
    draws = []
    for run in (lambda: None, lambda: run_tasks(live, Tasks(["kinds"], str(task_folder)), seed=5)):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        run()
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert draws[0] == draws[1]


def test_a_limit_takes_the_first_examples(task_folder):
    tokenizer = ByteSpec().build()
    live = LiveModel(model_of(tokenizer), tokenizer, batch_size=4, seed=0)
    assert run_tasks(live, Tasks(["kinds"], str(task_folder), limit=5), seed=0)["kinds"].examples == 5


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        (Tasks([]), "needs tasks"),
        # These read the harness's own ten thousand files.
        pytest.param(Tasks(["kind"], "TASKS"), "kinds", marks=pytest.mark.slow),
        pytest.param(Tasks(["hellaswga"]), "hellaswag", marks=pytest.mark.slow),
        (Tasks(["kinds"], "nowhere"), "no such folder"),
    ],
)
def test_what_is_no_task_is_told(tasks, says, task_folder):
    where = str(task_folder) if tasks.include_path == "TASKS" else tasks.include_path
    with pytest.raises(ConfigError, match=says):
        check(Tasks(tasks.tasks, where))


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"\.\[eval\]"):
        check(Tasks(["kinds"]))


def test_a_task_without_its_data_is_told(task_folder, tmp_path):
    text = (
        (task_folder / "kinds.yaml").read_text().replace("docs.jsonl", "gone.jsonl").replace("kinds", "gone")
    )
    (tmp_path / "gone.yaml").write_text(text)
    tokenizer = ByteSpec().build()
    live = LiveModel(model_of(tokenizer), tokenizer, batch_size=4, seed=0)
    with pytest.raises(DataError, match="gone"):
        run_tasks(live, Tasks(["gone"], str(tmp_path)), seed=0)


def test_what_outgrows_the_context_is_refused(task_folder):
    tokenizer = ByteSpec().build()
    live = LiveModel(model_of(tokenizer, context_length=8), tokenizer, batch_size=4, seed=0)
    with pytest.raises(ConfigError, match="context_length is 8"):
        run_tasks(live, Tasks(["kinds"], str(task_folder)), seed=0)
    with pytest.raises(ConfigError, match="max_gen_toks"):
        run_tasks(live, Tasks(["lines"], str(task_folder)), seed=0)
    with pytest.raises(ConfigError, match="a continuation of a task has no tokens"):
        live._loglikelihood_tokens([(None, [1], [])])


@pytest.mark.parametrize("shape", [{"architecture": "encoder"}, {"labels": ("a", "b")}, {"prefix_lm": True}])
def test_other_families_are_refused(shape):
    tokenizer = ByteSpec().build()
    with pytest.raises(ConfigError, match="decoders"):
        LiveModel(model_of(tokenizer, **shape), tokenizer, batch_size=4, seed=0)
