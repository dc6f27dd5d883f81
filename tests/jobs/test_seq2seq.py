"""Pairs by the same commands, on the Transformer of 2017 and on a decoder: train, see targets written, evaluate, ask, export."""

import json

import pytest

from llm.cli.main import main
from llm.generation import complete
from llm.tokenizer import load_tokenizer, writes_targets
from tests.commands import changed, on_pairs, without


@pytest.fixture
def words(tiny, tmp_path):
    return changed(on_pairs(tiny, tmp_path), "model=transformer_nano", "task=seq2seq")


def test_a_run_is_trained_scored_and_asked(words, tmp_path, capsys):
    shown = changed(words, "samples.every_n_steps=2")
    assert main(["train", *shown, "name=s", "trainer.max_steps=4"]) == 0
    folder = tmp_path / "runs/s"
    likelihood, pairs = json.loads((folder / "evaluation.json").read_text())
    assert set(likelihood["metrics"]) == {"loss", "perplexity", "bits_per_byte", "tokens", "bytes"}
    assert set(pairs["metrics"]) == {"exact_match", "chrf"}
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[0])
    assert " und " in sample["prompt"]
    capsys.readouterr()
    assert main(["evaluate", f"run={folder}", "eval=[perplexity,pairs]"]) == 0
    assert "chrf" in capsys.readouterr().out
    again = json.loads((folder / "evaluation.json").read_text())
    assert [entry["metrics"] for entry in again] == [likelihood["metrics"], pairs["metrics"]]


@pytest.mark.parametrize(
    ("model", "named"), [("nano", []), ("transformer_nano", ["architecture=encoder_decoder"])]
)
def test_what_was_prepared_beforehand_is_trained_on(words, tmp_path, model, named):
    words = changed(words, f"shards_dir={tmp_path}/shards", f"model={model}")
    kept = [word for word in words if word.startswith(("data", "tokenizer", "shards_dir"))]
    assert main(["prepare", *kept, "task=seq2seq", *named]) == 0
    made = set((tmp_path / "shards").iterdir())
    assert main(["train", *words, "name=p", "trainer.max_steps=1", "eval=[]"]) == 0
    assert set((tmp_path / "shards").iterdir()) == made


def test_nothing_is_prepared_for_a_model_that_can_not_do_the_task(words, tmp_path, capsys):
    kept = [word for word in words if word.startswith(("data", "tokenizer"))]
    words = [*kept, "task=seq2seq", "architecture=encoder", f"shards_dir={tmp_path}/shards"]
    assert main(["prepare", *words]) == 2
    assert "architecture=encoder: the task is for encoder_decoder or decoder alone" in capsys.readouterr().err
    assert not (tmp_path / "shards").exists()


def test_texts_without_targets_are_refused_before_anything_is_written(tiny, tmp_path, capsys):
    assert main(["train", *tiny, "model=transformer_nano", "task=seq2seq", "name=x"]) != 0
    assert "no pairs of source and target" in capsys.readouterr().err
    assert not (tmp_path / "runs/x").exists()


def test_a_model_of_texts_is_not_asked_for_pairs(tiny, tmp_path, capsys):
    assert main(["train", *tiny, "name=g", "trainer.max_steps=1"]) == 0
    assert main(["evaluate", f"run={tmp_path}/runs/g", "eval=pairs"]) != 0
    assert "eval=pairs: it is for models of pairs" in capsys.readouterr().err


@pytest.fixture(scope="module")
def decoder(tiny_in, tmp_path_factory):
    """The words and the folder of a decoder that was trained on pairs."""
    folder = tmp_path_factory.mktemp("decoder")
    words = changed(on_pairs(tiny_in(folder), folder), "task=seq2seq", "samples.every_n_steps=2")
    assert main(["train", *words, "name=s", "trainer.max_steps=4"]) == 0
    return words, folder / "runs/s"


def test_a_decoder_is_trained_on_pairs_scored_and_asked(decoder, capsys, tmp_path):
    _, folder = decoder
    likelihood, pairs = json.loads((folder / "evaluation.json").read_text())
    assert set(likelihood["metrics"]) == {"loss", "perplexity", "bits_per_byte", "tokens", "bytes"}
    assert set(pairs["metrics"]) == {"exact_match", "chrf"}
    rows = [json.loads(line) for line in (folder / pairs["outputs"]).read_text().splitlines()]
    assert all(" and " in row["target"] for row in rows)
    # Scored are the targets, with their ends of text, and nothing of the sources.
    assert likelihood["metrics"]["bytes"] == sum(len(row["target"]) for row in rows)
    assert likelihood["metrics"]["tokens"] > len(rows)
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[0])
    assert " und " in sample["prompt"]
    assert sample["prompt"].endswith("\n")
    assert main(["evaluate", f"run={folder}", "eval=[perplexity,pairs,summarization]"]) == 0
    again = json.loads((folder / "evaluation.json").read_text())[-3:]
    assert [entry["metrics"] for entry in again[:2]] == [likelihood["metrics"], pairs["metrics"]]
    assert "copy_rouge1" in again[2]["metrics"]


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_a_source_alone_is_drawn_as_one_from_a_file(decoder, words, tmp_path, capsys, kind):
    folder = decoder[1] if kind == "decoder" else tmp_path / "runs/e"
    if kind == "encoder_decoder":
        assert main(["train", *words, "name=e", "trainer.max_steps=1", "eval=[]"]) == 0
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "3 und 4"}))
    ask = ["generate", f"run={folder}", "max_new_tokens=8"]
    alone, many = [*ask, "prompt=3 und 4"], [*ask, f"data.paths={tmp_path}/prompts.jsonl"]
    texts = []
    for number, how in enumerate((["temperature=0"], ["seed=5"], ["seed=6", "top_k=3"])):
        capsys.readouterr()
        assert main([*alone, *how]) == 0
        texts.append(capsys.readouterr().out.removesuffix("\n"))
        assert main([*many, *how, f"out={tmp_path}/{number}.jsonl"]) == 0
        assert json.loads((tmp_path / f"{number}.jsonl").read_text())["texts"] == texts[-1:]
    assert len(set(texts)) == 3
    capsys.readouterr()
    assert main([*alone, "num_samples=2"]) == 0
    told = capsys.readouterr()
    assert told.out.count("--- sample") == 2
    assert told.err == ""


def test_a_decoder_of_pairs_is_asked_alike_by_transformers(decoder, tmp_path):
    transformers = pytest.importorskip("transformers")
    from llm import build

    assert main(["export", f"run={decoder[1]}", f"out={tmp_path}/hf"]) == 0
    net, tokenizer = build.usable_model(str(decoder[1]), None)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    ask = theirs.apply_chat_template(
        [{"role": "user", "content": "3 und 4"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    assert ask["input_ids"][0].tolist() == [*tokenizer.encode("3 und 4"), tokenizer.end_of_text]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    written = model.generate(**ask, max_new_tokens=8, do_sample=False)[0, ask["input_ids"].shape[1] :]
    assert (
        theirs.decode(written, skip_special_tokens=True)
        == complete(net, tokenizer, "3 und 4", max_new_tokens=8)[0]
    )
    assert '"a source of yours" + tokenizer.eos_token' in (tmp_path / "hf/README.md").read_text()
    # What comes back from there is a model of pairs still.
    assert writes_targets(build.usable_model(str(tmp_path / "hf"), None)[1])


def test_a_decoder_goes_on_from_a_run_of_texts_to_pairs_and_back(tiny, tmp_path):
    assert main(["train", *tiny, "name=base", "trainer.max_steps=1"]) == 0
    start = [*without(tiny, "model", "tokenizer"), f"init_from={tmp_path}/runs/base"]
    words = changed(on_pairs(start, tmp_path), "task=summarization")
    assert main(["train", *words, "name=pairs", "trainer.max_steps=2"]) == 0
    base, pairs = (load_tokenizer(tmp_path / "runs" / name / "tokenizer") for name in ("base", "pairs"))
    assert writes_targets(pairs)
    assert not writes_targets(base)
    back = changed(start, f"init_from={tmp_path}/runs/pairs", "name=back", "trainer.max_steps=1")
    assert main(["train", *back]) == 0
    assert not writes_targets(load_tokenizer(tmp_path / "runs/back/tokenizer"))


def test_a_source_that_fills_a_decoders_context_is_refused(decoder, capsys):
    assert main(["generate", f"run={decoder[1]}", f"prompt={'3 und ' * 60}"]) != 0
    assert "and is to have 1 more; the model's context_length is" in capsys.readouterr().err


# A decoder learns labels and answers of its source in the tests of other tasks.
@pytest.mark.parametrize("model", ["transformer_nano", pytest.param("nano", marks=pytest.mark.slow)])
def test_a_copy_is_learnt(words, tmp_path, model):
    sizes = ["model.d_model=64", "model.d_ff=128", "model.context_length=16"]
    batches = ["data.batch_size=32", "data.micro_batch_size=32", "data.validation_share=0.2"]
    quiet = [
        "trainer.val_check_interval=null",
        "checkpoint.every_n_steps=300",
        "trainer.log_every_n_steps=50",
    ]
    recipe = [
        f"model={model}",
        "model.dropout=0",
        "model.residual=pre",
        "optimizer.lr=3e-3",
        "trainer.max_steps=300",
    ]
    assert main(["train", *changed(words, *sizes, *batches, *quiet, *recipe), "name=c"]) == 0
    pairs = json.loads((tmp_path / "runs/c/evaluation.json").read_text())[1]["metrics"]
    assert pairs["exact_match"] > 0.5
    assert pairs["chrf"] > 80
