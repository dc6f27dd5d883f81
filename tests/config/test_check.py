"""The typed check: what passes, what doesn't, and what is said."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le

from llm.config import SCHEMAS, TrainConfig, check, filled, known_keys
from llm.config.check import described
from llm.config.words import ALIASES, REFUSED, nearest


@dataclass
class Inner:
    rate: Annotated[float, Gt(0), Le(1)] = 0.5
    kind: Literal["a", "b"] = "a"


@dataclass
class Outer:
    count: int = 3
    text: str | None = None
    many: list[str] = field(default_factory=list)
    pair: tuple[float, float] = (0.1, 0.2)
    switch: bool | Literal["auto"] = "auto"
    inner: Inner = field(default_factory=Inner)
    anything: Any = None


def problems(**values: Any) -> list[str]:
    return [str(problem) for problem in check(values, Outer)]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"count": 0},
        {"text": None},
        {"text": "x"},
        {"many": []},
        {"many": ["a"]},
        {"pair": [1, 2.5]},
        {"switch": True},
        {"switch": "auto"},
        {"inner": {}},
        {"inner": {"rate": 1}},
        {"anything": {"a": {"b": 1}}},
        {"anything": [1, "x"]},
    ],
)
def test_what_fits_passes(values: dict[str, Any]) -> None:
    assert problems(**values) == []


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"count": "3"}, "count=3: expected int, got text."),
        ({"count": 3.0}, "count=3.0: expected int, got float. Write 3."),
        ({"count": True}, "count=true: expected int, got bool."),
        ({"count": None}, "count=null: expected int, got null."),
        ({"text": 5}, "text=5: expected text or null, got int."),
        ({"many": "a"}, "many=a: expected a list of text, got text."),
        ({"many": [1]}, "many=[1]: expected a list of text, got list."),
        ({"pair": [1]}, "pair=[1]: expected a list of float, got list."),
        ({"switch": "auot"}, "switch=auot: expected bool or auto, got text. Did you mean auto?"),
        ({"inner": {"rate": 0}}, "inner.rate=0: expected float above 0 up to 1, got int."),
        ({"inner": {"rate": float("inf")}}, "inner.rate=inf: expected float above 0 up to 1."),
        ({"inner": {"kind": "c"}}, "inner.kind=c: expected one of a, b, got text."),
        ({"inner": {"kinds": "a"}}, "inner.kinds=a: there is no key inner.kinds. Did you mean inner.kind?"),
        ({"inner": 5}, "inner=5: this is a group of keys, such as inner.rate=."),
        ({"cuont": 5}, "cuont=5: there is no key cuont. Did you mean count?"),
        ({"xyz": 5}, "xyz=5: there is no key xyz."),
        ({"text": ["a" * 100]}, None),
    ],
)
def test_what_doesnt_fit_is_told(values: dict[str, Any], told: str | None) -> None:
    (message,) = problems(**values)
    if told is None:
        assert len(message) < 150
    else:
        assert message == told


def test_defaults_fill_what_is_missing_in_the_schemas_order() -> None:
    done = filled({"inner": {"kind": "b"}, "count": 7}, Outer)
    assert done["inner"] == {"rate": 0.5, "kind": "b"}
    assert list(done) == ["count", "text", "many", "pair", "switch", "inner", "anything"]
    assert filled({}, Outer)["inner"] == {"rate": 0.5, "kind": "a"}


def test_filling_shares_nothing() -> None:
    first = filled({}, Outer)
    first["many"].append("x")
    first["inner"]["rate"] = 1
    assert filled({}, Outer)["many"] == []
    assert filled({}, Outer)["inner"]["rate"] == 0.5


def test_keys_depend_on_the_class() -> None:
    adamw = known_keys(TrainConfig, {"optimizer": {"_target_": "llm.train.optimizers.adamw"}})
    muon = known_keys(TrainConfig, {"optimizer": {"_target_": "llm.train.optimizers.Muon"}})
    assert "optimizer.adam_lr" not in adamw
    assert muon["optimizer.adam_lr"].annotation == Annotated[float, Gt(0)]


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (str | None, "text or null"),
        (Literal["a", "b"], "one of a, b"),
        (list[int] | Literal["auto"], "a list of int or auto"),
        (Annotated[int, Ge(0)], "int from 0"),
    ],
)
def test_types_in_words(annotation: Any, text: str) -> None:
    assert described(annotation) == text


KNOWN = [
    "name",
    "seed",
    "model.d_model",
    "model.n_layers",
    "optimizer.lr",
    "trainer.max_steps",
    "data.batch_size",
]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("trainer.max_step", "trainer.max_steps"),
        ("max_steps", "trainer.max_steps"),
        ("optimizer.learning_rate", "optimizer.lr"),
        ("LEARNING_RATE", "optimizer.lr"),
        ("learning-rate", "optimizer.lr"),
        ("modl.d_model", "model.d_model"),
        ("n_layesr", "model.n_layers"),
        ("sede", "seed"),
        ("qqqqqq", None),
        ("", None),
    ],
)
def test_the_nearest_name(word: str, meant: str | None) -> None:
    assert nearest(word, KNOWN) == meant


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Every key of `train` under every choice, and every group."""
    from llm.cli import catalog

    folders = catalog.config_folders(None)
    keys = set(known_keys(TrainConfig, {}))
    for group, names in catalog.group_choices(folders).items():
        keys |= {group} | {k for n in names for k in catalog.keys_of_choice("train", folders, group, n)}
    return keys


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("num_train_epochs", "trainer.max_epochs"),
        ("batch_size", "data.batch_size"),
        ("hidden_size", "model.d_model"),
        ("model.n_embd", "model.d_model"),
        ("model.num_layers", "model.n_layers"),
        ("n_layer", "model.n_layers"),
        ("num_attention_heads", "model.n_heads"),
        ("block_size", "model.context_length"),
        ("max_iters", "trainer.max_steps"),
        ("gradient_accumulation_steps", "data.micro_batch_size"),
        ("output_dir", "runs_dir"),
        ("fp16", "trainer.precision"),
        ("grad_clip", "trainer.gradient_clip_val"),
        ("warmup_iters", "schedule.warmup_steps"),
        ("gpus", "trainer.devices"),
        ("checkpoint.every_n_step", "checkpoint.every_n_steps"),
        ("sample.every_n_steps", "samples.every_n_steps"),
        ("optimzer.lr", "optimizer.lr"),
        ("tokeniser", "tokenizer"),
        ("weight_decay", "optimizer.weight_decay"),
        ("vocab_size", "tokenizer.vocab_size"),
    ],
)
def test_other_tools_words_and_slips(word: str, meant: str, known: set[str]) -> None:
    assert nearest(word, sorted(known)) == meant


def test_aliases_lead_to_keys_that_exist(known: set[str]) -> None:
    others = {key for schema in SCHEMAS.values() for key in known_keys(schema, {})}
    assert [alias for alias, key in ALIASES.items() if key not in known | others] == []
    assert all(ALIASES.get(key) != key for key in ALIASES)
    assert all(key.startswith("trainer.") for key in REFUSED)
