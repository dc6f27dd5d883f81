"""`llm serve run=[base,one,two]`: runs with adapters on one model have it once in memory, and each writes its own text."""

import shutil
import threading

import openai
import pytest
import torch
from small_server import serving

from llm import build
from llm.cli.compose import compose
from llm.cli.main import main
from llm.errors import ConfigError
from llm.generation import Sampling, complete
from llm.jobs.serve import _models
from llm.model import CachePool
from llm.train import checkpoint
from llm.train.checkpoint import CheckpointWriter
from llm.train.run import Run


@pytest.fixture(scope="module")
def runs(text_folder, tmp_path_factory, tiny_words):
    folder = tmp_path_factory.mktemp("adapters")
    places = [f"data.paths=[{text_folder}/*.txt]", f"runs_dir={folder}", f"shards_dir={folder}/shards"]
    words, quiet = list(tiny_words), ["trainer.max_steps=2", "eval=[]"]
    assert main(["train", *words, *places, *quiet, "name=base"]) == 0
    kept = [word for word in words if not word.startswith(("model", "tokenizer"))]
    tuned = [*kept, *places, *quiet, f"init_from={folder}/base", "adapter=lora", "optimizer.lr=1"]
    assert main(["train", *tuned, "name=one", "seed=1"]) == 0
    another(Run(folder / "one"), Run(folder / "two"))
    return folder


def another(run, made):
    """A run with another adapter on the same weights."""
    folder = checkpoint.find(run.checkpoints, None)
    _, tensors = checkpoint.read_parts(folder)
    tensors = {name: -tensor if name.endswith("lora_b") else tensor for name, tensor in tensors.items()}
    shutil.copytree(run.folder, made.folder)
    writer = CheckpointWriter(made.checkpoints, 2)
    writer.write({checkpoint.MODEL_FILE: tensors})
    writer.publish({key: value for key, value in checkpoint.read_manifest(folder).items() if key != "files"})


def served(runs, names, *more):
    listed = ",".join(f"{runs}/{name}" for name in names)
    return _models(compose("serve", [f"run=[{listed}]", *more]).config)


def pointers(model):
    return {parameter.data_ptr() for parameter in model.parameters()}


@pytest.mark.parametrize("names", [["base", "one", "two"], ["two", "one"]], ids=["with", "without the base"])
def test_the_base_is_loaded_once(runs, names):
    first, *others = served(runs, names, "max_batch_size=5", "max_waiting=7", "speculate=3")
    assert all(pointers(one.model) == pointers(first.model) for one in others)
    assert all(one.worker is first.worker for one in others)
    shared = [(one.rows, one.waiting, one.speculate) for one in (first, *others)]
    assert shared == [(5, 7, 3)] * len(shared)
    (alone,) = served(runs, ["one"])
    assert alone.adapter is None  # folded in, since nothing is shared


def test_each_model_writes_its_own_text_in_one_batch(runs):
    names = ["one", "base", "two"]
    alone = {name: build.usable_model(f"{runs}/{name}", None) for name in names}
    drawn = {"sampling": Sampling(temperature=1.5), "seed": 3, "max_new_tokens": 20}
    expected = {name: complete(*alone[name], "def ", **drawn)[0] for name in names}
    assert len(set(expected.values())) == 3
    models = served(runs, names, "max_batch_size=6")
    widths, hidden_states = [], models[0].worker._engine.model.hidden_states
    models[0].worker._engine.model.hidden_states = lambda x, cache, **more: (
        widths.append(len(x)),
        hidden_states(x, cache, **more),
    )[1]
    found = []

    def ask(name):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        answer = client.completions.create(model=name, prompt="def ", max_tokens=20, temperature=1.5, seed=3)
        found.append((name, answer.choices[0].text))

    with serving(*models) as address:
        threads = [threading.Thread(target=ask, args=[name]) for name in names * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found) == sorted((name, expected[name]) for name in names * 2)
    assert max(widths) > 1


def test_an_adapter_that_peft_saved_shares_its_model_too(runs):
    assert main(["export", f"run={runs}/one", "format=peft", f"out={runs}/saved"]) == 0
    first, one, saved = served(runs, ["base", "one", "saved"])
    assert pointers(saved.model) == pointers(first.model)
    assert saved.worker is first.worker
    expected = complete(*build.usable_model(f"{runs}/one", None), "def ", max_new_tokens=20)[0]
    with serving(first, one, saved) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        for name in ("saved", "one"):
            answer = client.completions.create(model=name, prompt="def ", max_tokens=20, temperature=0)
            assert answer.choices[0].text == expected


def test_models_that_share_no_layers_share_the_caches_memory(runs):
    (alone,) = served(runs, ["base"])
    row_gib = CachePool.row_bytes(alone.model.config, torch.float32) / 2**30
    shutil.copytree(runs / "base", runs / "copy")
    both = served(runs, ["base", "one", "copy"], f"cache_gib={8.5 * row_gib}")
    assert [one.rows for one in both] == [4, 4, 4]
    (with_draft,) = served(runs, ["base"], f"cache_gib={8.5 * row_gib}", f"draft={runs}/copy", "speculate=2")
    assert with_draft.rows == 7
    with pytest.raises(ConfigError, match="cache_gib"):
        served(runs, ["base", "copy"], f"cache_gib={1.5 * row_gib}")


def test_a_draft_guesses_for_models_with_its_tokenizer(runs):
    with pytest.raises(ConfigError, match="speculate=4"):
        served(runs, ["base"], f"draft={runs}/one")
    (one,) = served(runs, ["base"], f"draft={runs}/base", "speculate=4", "max_batch_size=1")
    net, tokenizer = build.usable_model(f"{runs}/base", None)
    expected = complete(net, tokenizer, "def ", max_new_tokens=24)[0]
    with serving(one) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        answer = client.completions.create(model="base", prompt="def ", max_tokens=24, temperature=0)
    assert answer.choices[0].text == expected
