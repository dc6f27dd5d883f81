"""Starting from a Hugging Face folder: transformers' own weights and tokenizer, trained on by one command."""

import json

import pytest
import torch

from llm.cli.main import main
from llm.train import checkpoint

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture
def folder(tmp_path):
    """A tiny Llama with a tokenizer, as transformers writes them."""
    path = tmp_path / "llama"
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<eos>"]
    )
    bpe.train_from_iterator(["def spam(eggs): return eggs\n" * 50], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>")
    fast.save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


def test_a_hugging_face_folder_is_trained_on(folder, tiny, tmp_path):
    words = [word for word in tiny if not word.startswith(("model.", "tokenizer"))]
    assert main(["train", *words, f"init_from={folder}", "name=a", "trainer.max_steps=2"]) == 0
    from safetensors.torch import load_file

    ours = load_file(tmp_path / "runs/a/checkpoints/step_00000002/model.safetensors")
    theirs = load_file(folder / "model.safetensors")
    # Two steps of a small rate from transformers' own embedding.
    moved = (ours["embedding.tokens.weight"] - theirs["model.embed_tokens.weight"]).abs().max().item()
    assert 0 < moved < 0.01


@pytest.mark.parametrize("start", ["./nowhere", "/nowhere/at/all"])
def test_a_folder_that_is_not_there_is_said(tiny, tmp_path, capsys, start):
    words = [word for word in tiny if not word.startswith(("model.", "tokenizer"))]
    assert main(["train", *words, f"init_from={start}", "name=a"]) == 1
    assert "is no folder of a run or of a Hugging Face model" in capsys.readouterr().err


def test_a_shorter_context_is_that_of_the_run(folder, tiny, tmp_path, capsys):
    words = [word for word in tiny if not word.startswith(("model.", "tokenizer"))]
    start = [*words, f"init_from={folder}", "name=a"]
    assert main(["train", *start, "context_length=16", "trainer.max_steps=1"]) == 0
    shape, _ = checkpoint.read_model(checkpoint.find(tmp_path / "runs/a/checkpoints", None))
    assert shape.context_length == 16
    record = json.loads((tmp_path / "runs/a/run.json").read_text())
    assert record["init_from"] == str(folder)
    assert {"model", "tokenizer", "debug"}.isdisjoint(record["choices"])
    assert main(["train", *start, "context_length=16", "trainer.max_steps=2"]) == 0
    assert main(["train", *start, "trainer.max_steps=3"]) != 0
    assert "context_length: 16 -> None   (refused)" in capsys.readouterr().out
    assert main(["train", *words, f"init_from={folder}", "name=b", "context_length=64"]) != 0
    assert "has 32 positions" in capsys.readouterr().err
    assert main(["train", *tiny, "name=b", "context_length=16"]) != 0
    assert "model.context_length= is a new one's" in capsys.readouterr().err


def test_learned_positions_are_cut_with_the_context(tiny, tmp_path):
    kept = [word for word in tiny if not word.startswith(("model.n_kv", "model.head"))]
    gpt = [*kept, "model=gpt_nano", "name=a", "trainer.max_steps=1"]
    assert main(["train", *gpt]) == 0
    words = [word for word in kept if not word.startswith(("model", "tokenizer"))]
    cut = [*words, f"init_from={tmp_path}/runs/a", "context_length=8", "name=b", "trainer.max_steps=1"]
    assert main(["train", *cut, "optimizer.lr=1e-30"]) == 0
    (whole, before), (shape, after) = (
        checkpoint.read_model(checkpoint.find(tmp_path / f"runs/{name}/checkpoints", None)) for name in "ab"
    )
    assert (whole.context_length, shape.context_length) == (32, 8)
    name = "embedding.positions.weight"
    torch.testing.assert_close(after[name], before[name][:8], rtol=0, atol=0)
