"""Starting from Hugging Face's models: transformers' own weights and tokenizer, in a folder or on the hub."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from llm import build
from llm.build import usable_model
from llm.cli.main import main
from llm.tokenizer import SENTINEL, load_tokenizer
from llm.train import checkpoint
from llm.train.run import Run
from tests.commands import on_pairs, weights, without

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

TEXT = ["def spam(eggs): return eggs\n" * 50]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
PAIR_SIZES = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 32} | {
    f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in (("attention_heads", 2), ("ffn_dim", 64))
}  # fmt: skip
T5_SIZES = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "n_positions": 32}


def byte_bpe(specials):
    """As GPT-2 and Llama have it."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXT,
        tokenizers.trainers.BpeTrainer(
            vocab_size=300 + len(specials), initial_alphabet=alphabet, special_tokens=specials
        ),
    )
    return backend


def word_pieces():
    """As BERT has it."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = tokenizers.normalizers.BertNormalizer()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.decoder = tokenizers.decoders.WordPiece()
    backend.train_from_iterator(
        TEXT, tokenizers.trainers.WordPieceTrainer(vocab_size=200, special_tokens=specials)
    )
    return backend


def saved(path, model, config, backend, **roles):
    """A tiny model of random weights and its tokenizer, as transformers writes them."""
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
    fast.save_pretrained(path)
    torch.manual_seed(0)
    getattr(transformers, model)(
        getattr(transformers, config[0])(vocab_size=len(fast), **config[1])
    ).save_pretrained(path)
    return path


@pytest.fixture
def llama(tmp_path):
    config = ("LlamaConfig", SIZES)
    return saved(tmp_path / "llama", "LlamaForCausalLM", config, byte_bpe(["<eos>"]), eos_token="<eos>")


@pytest.fixture
def start(tiny, tmp_path):
    """Train two steps of a small rate from somewhere; gives the run's folder."""

    def started(where, *more, words=tiny):
        kept = without(words, "model", "tokenizer")
        assert main(["train", *kept, f"init_from={where}", *more, "name=a", "trainer.max_steps=2"]) == 0
        return tmp_path / "runs/a"

    return started


def moved(ours, theirs):
    """By how much two steps have moved an embedding."""
    return (ours["embedding.tokens.weight"] - theirs).abs().max().item()


def test_a_hugging_face_folder_is_trained_on(llama, start):
    theirs = load_file(llama / "model.safetensors")["model.embed_tokens.weight"]
    assert 0 < moved(weights(start(llama)), theirs) < 0.01


@pytest.mark.parametrize("kind", ["t5", "marian"])
def test_an_encoder_decoder_is_trained_on(kind, start, tiny, tmp_path):
    specials = ["<pad>", "</s>", *(SENTINEL.format(n) for n in range(20))]
    config, words, task = {
        "t5": (("T5Config", T5_SIZES), tiny, "task=span_corruption"),
        "marian": (("MarianConfig", PAIR_SIZES), on_pairs(tiny, tmp_path), "task=seq2seq"),
    }[kind]
    model = {"t5": "T5ForConditionalGeneration", "marian": "MarianMTModel"}[kind]
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    config = (config[0], config[1] | ids)
    roles = {"eos_token": "</s>", "pad_token": "<pad>"}
    folder = saved(tmp_path / kind, model, config, byte_bpe(specials), **roles)
    name = {"t5": "shared.weight", "marian": "model.shared.weight"}[kind]
    assert (
        0
        < moved(weights(start(folder, task, words=words)), load_file(folder / "model.safetensors")[name])
        < 0.01
    )


def test_an_embedding_model_is_trained_on_and_exported(start, tmp_path, capsys):
    """A BertModel: the export gives transformers' users the hidden states that ours has, under the same class."""
    folder = saved(
        tmp_path / "states",
        "BertModel",
        ("BertConfig", SIZES),
        word_pieces(),
        mask_token="[MASK]",
        sep_token="[SEP]",
    )
    run, out = start(folder, "task=masked_lm"), tmp_path / "out"
    capsys.readouterr()
    assert main(["export", f"run={run}", f"out={out}"]) == 0
    assert "last_hidden_state" in capsys.readouterr().out
    assert json.loads((out / "config.json").read_text())["architectures"] == ["BertModel"]
    model, info = transformers.AutoModel.from_pretrained(out, output_loading_info=True)
    assert {key: list(value) for key, value in info.items() if value} == {}
    assert transformers.AutoTokenizer.from_pretrained(out).mask_token == "[MASK]"
    net, _ = build.trained_model(Run.open(run), None)
    ids = torch.tensor([load_tokenizer(run / "tokenizer").encode("def spam(eggs): return")])
    with torch.no_grad():
        theirs, ours = model(ids), net.hidden_states(ids)
        assert (ours - theirs.last_hidden_state).abs().max() <= 2e-6 * ours.abs().max()
        assert (net.pooler(ours[:, 0]) - theirs.pooler_output).abs().max() <= 2e-6


def test_a_hub_id_is_downloaded_without_pickles_and_code(llama, start, monkeypatch):
    asked = []

    def snapshot_download(id_, allow_patterns):
        asked.append((id_, allow_patterns))
        return str(llama)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    run = start("someone/tiny-llama")
    assert 0 < moved(weights(run), load_file(llama / "model.safetensors")["model.embed_tokens.weight"]) < 0.01
    assert {id_ for id_, _ in asked} == {"someone/tiny-llama"}
    assert not {"*.bin", "*.pt", "*.py", "*"} & {pattern for _, patterns in asked for pattern in patterns}


def test_a_hub_that_gives_nothing_is_said(tiny, tmp_path, capsys, monkeypatch):
    def snapshot_download(id_, allow_patterns):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    words = [*without(tiny, "model", "tokenizer"), "init_from=someone/tiny-llama", "name=a"]
    assert main(["train", *words]) == 1
    said = capsys.readouterr().err
    assert "someone/tiny-llama is no folder of a run or of a Hugging Face model" in said
    assert "the hub gave none of that id: ConnectionError: no route" in said
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["train", *words]) == 1
    assert "for a hub id, pip install -e '.[huggingface]'" in capsys.readouterr().err
    assert not (tmp_path / "runs/a").exists()


@pytest.mark.parametrize("start", ["./nowhere", "/nowhere/at/all"])
def test_a_folder_that_is_not_there_is_said(tiny, capsys, start):
    assert main(["train", *without(tiny, "model", "tokenizer"), f"init_from={start}", "name=a"]) == 1
    assert "is no folder of a run or of a Hugging Face model" in capsys.readouterr().err


def test_a_shorter_context_is_that_of_the_run(llama, tiny, tmp_path, capsys):
    words = [word for word in tiny if not word.startswith(("model.", "tokenizer"))]
    start = [*words, f"init_from={llama}", "name=a"]
    assert main(["train", *start, "context_length=16", "trainer.max_steps=1"]) == 0
    model_config, _ = checkpoint.read_model(checkpoint.find(tmp_path / "runs/a/checkpoints", None))
    assert model_config.context_length == 16
    record = json.loads((tmp_path / "runs/a/run.json").read_text())
    assert record["init_from"] == str(llama)
    assert {"model", "tokenizer", "debug"}.isdisjoint(record["choices"])
    assert main(["train", *start, "context_length=16", "trainer.max_steps=2"]) == 0
    assert main(["train", *start, "trainer.max_steps=3"]) != 0
    assert "context_length: 16 -> None   (refused)" in capsys.readouterr().out
    assert main(["train", *words, f"init_from={llama}", "name=b", "context_length=64"]) != 0
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
    (whole, before), (shortened, after) = (
        checkpoint.read_model(checkpoint.find(tmp_path / f"runs/{name}/checkpoints", None)) for name in "ab"
    )
    assert (whole.context_length, shortened.context_length) == (32, 8)
    name = "embedding.positions.weight"
    torch.testing.assert_close(after[name], before[name][:8], rtol=0, atol=0)


def test_an_adapter_of_peft_is_folded_in(llama, tiny, tmp_path, capsys):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    theirs = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(llama), config).eval()
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
    (tmp_path / "adapter/adapter_config.json").write_text(settings.replace(str(llama), f"{tmp_path}/gone"))
    assert main(["train", *words, start, "name=x"]) != 0
    assert f"{tmp_path}/gone is no folder" in capsys.readouterr().err
