"""Starting from a Hugging Face folder: transformers' own weights and tokenizer, trained on by one command."""

import pytest
import torch

from llm.build import usable_model
from llm.cli.main import main

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


def test_an_adapter_of_peft_is_folded_in(folder, tiny, tmp_path, capsys):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    theirs = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(folder), config).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    net, tokenizer = usable_model(str(tmp_path / "adapter"), None)
    tokens = torch.tensor([tokenizer.encode("def spam")])
    with torch.no_grad():
        wanted, found = theirs(tokens).logits, net(tokens)
    assert (found - wanted).abs().max() / wanted.abs().max() <= 2e-6
    words = [word for word in tiny if not word.startswith(("model.", "tokenizer"))]
    start = f"init_from={tmp_path}/adapter"
    assert main(["train", *words, start, "name=on", "trainer.max_steps=1"]) == 0
    settings = (tmp_path / "adapter/adapter_config.json").read_text()
    (tmp_path / "adapter/adapter_config.json").write_text(settings.replace(str(folder), f"{tmp_path}/gone"))
    assert main(["train", *words, start, "name=x"]) != 0
    assert f"{tmp_path}/gone is no folder" in capsys.readouterr().err
