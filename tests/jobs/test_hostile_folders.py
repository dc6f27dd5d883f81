"""Run, checkpoint, Hugging Face and shards folders that anybody may have made: no command runs what they hold.

Payloads are planted at each place, alone and with a manifest or an index that vouches for them. Every command ends
by its own words, or passes the planted file over for a good one.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import marshal
import os
import pickle
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import yaml
from safetensors.torch import load_file, save_file

from llm.cli.main import main
from llm.files import read_json, write_json
from llm.hub import to_huggingface
from llm.model import ModelConfig, Transformer

OLDER, NEWEST = "step_00000004", "step_00000008"


class Reduce:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def code_object(marker: str) -> Reduce:
    """A function's code inside a pickle, as dill and cloudpickle write it."""
    code = compile(f"open({marker!r}, 'w')", "<payload>", "exec")
    return Reduce(exec, Reduce(marshal.loads, marshal.dumps(code)))


# What a pickle can call that leaves the file `marker` behind.
CALLS: dict[str, Callable[[str], Reduce]] = {
    "os.system": lambda marker: Reduce(os.system, f"touch {marker}"),
    "os.mkdir": lambda marker: Reduce(os.mkdir, marker),
    "subprocess.run": lambda marker: Reduce(subprocess.run, ["touch", marker]),
    "subprocess.getoutput": lambda marker: Reduce(subprocess.getoutput, f"touch {marker}"),
    "exec": lambda marker: Reduce(exec, f"open({marker!r}, 'w')"),
    "eval": lambda marker: Reduce(eval, f"open({marker!r}, 'w') and None"),
    "open": lambda marker: Reduce(open, marker, "w"),
    "dill": code_object,
}


def torch_save(call: Reduce, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "hyper_parameters": call}, buffer, **options)
    return buffer.getvalue()


def numpy_save(call: Reduce, save: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, np.array([call], dtype=object))
    return buffer.getvalue()


def by_opcodes(text: str) -> Callable[[str], bytes]:
    return lambda marker: text.replace("COMMAND", f"touch {marker}").encode("latin-1")


def pickled(**options: Any) -> Callable[[str], bytes]:
    return lambda marker: pickle.dumps(CALLS["os.system"](marker), **options)


def packed(pack: Callable[[bytes], bytes]) -> Callable[[str], bytes]:
    return lambda marker: pack(pickle.dumps(CALLS["exec"](marker)))


def load_torch(data: bytes) -> None:
    torch.load(io.BytesIO(data), weights_only=False)


def load_numpy(data: bytes) -> None:
    loaded = np.load(io.BytesIO(data), allow_pickle=True)
    if hasattr(loaded, "files"):
        loaded[loaded.files[0]]


def unpacked(unpack: Callable[[bytes], bytes]) -> Callable[[bytes], None]:
    return lambda data: pickle.loads(unpack(data))


# Payloads by name: how they are made for a marker, and what would run them.
RUNNING: dict[str, tuple[Callable[[str], bytes], Callable[[bytes], Any]]] = {
    **{
        f"pickle {name}": (lambda marker, call=call: pickle.dumps(call(marker)), pickle.loads)
        for name, call in CALLS.items()
    },
    "pickle protocol 0": (pickled(protocol=0), pickle.loads),
    "pickle protocol 2": (pickled(protocol=2), pickle.loads),
    "pickle protocol 5": (pickled(protocol=5), pickle.loads),
    "pickle GLOBAL": (by_opcodes("cposix\nsystem\n(S'COMMAND'\ntR."), pickle.loads),
    "pickle INST": (by_opcodes("(S'COMMAND'\niposix\nsystem\n."), pickle.loads),
    "pickle OBJ": (by_opcodes("(cposix\nsystem\nS'COMMAND'\no."), pickle.loads),
    "pickle without its end": (by_opcodes("cposix\nsystem\n(S'COMMAND'\ntR"), pickle.loads),
    "pickle with more behind it": (by_opcodes("cposix\nsystem\n(S'COMMAND'\ntR." + "x" * 999), pickle.loads),
    "pickle zlib": (packed(zlib.compress), unpacked(zlib.decompress)),
    "pickle gzip": (packed(gzip.compress), unpacked(gzip.decompress)),
    "pickle bz2": (packed(bz2.compress), unpacked(bz2.decompress)),
    "pickle xz": (packed(lzma.compress), unpacked(lzma.decompress)),
    "torch zip": (lambda marker: torch_save(CALLS["os.system"](marker)), load_torch),
    "torch zip exec": (lambda marker: torch_save(CALLS["exec"](marker)), load_torch),
    "torch legacy": (
        lambda marker: torch_save(CALLS["eval"](marker), _use_new_zipfile_serialization=False),
        load_torch,
    ),
    "numpy npy": (lambda marker: numpy_save(CALLS["os.system"](marker), np.save), load_numpy),
    "numpy npz": (lambda marker: numpy_save(CALLS["exec"](marker), np.savez), load_numpy),
    "yaml apply": (
        lambda marker: f"!!python/object/apply:os.system ['touch {marker}']\n".encode(),
        yaml.unsafe_load,
    ),
    "yaml nested": (
        lambda marker: f"model:\n  d_model: !!python/object/apply:os.mkdir ['{marker}']\n".encode(),
        yaml.unsafe_load,
    ),
}


def with_header(text: str | bytes, length: int | None = None, data: bytes = b"") -> bytes:
    """A safetensors file of this header, which may lie about its length."""
    header = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def tensor(start: int, end: int, shape: str = "[1]", dtype: str = "F32") -> str:
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}'


DEEP = 100_000
MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": b"1234567",
    "noise": hashlib.shake_256(b"noise").digest(5000),
    "zeros": bytes(4096),
    "header as long as a disk": with_header("{}", length=2**63),
    "header of all bits": with_header("{}", length=2**64 - 1),
    "header longer than the file": with_header("{}", length=99_999_999),
    "header of a megabyte of brackets": with_header("[" * (1 << 20)),
    "header of nested objects": with_header('{"a":' * DEEP + "1" + "}" * DEEP),
    "header that is no UTF-8": with_header(b'{"\xff":1}'),
    "negative offsets": with_header(f'{{"a":{tensor(-4, 0)}}}', data=b"1234"),
    "backward offsets": with_header(f'{{"a":{tensor(4, 0)}}}', data=b"1234"),
    "offsets past the end": with_header(f'{{"a":{tensor(0, 4_000_000)}}}', data=b"1234"),
    "overlapping offsets": with_header(f'{{"a":{tensor(0, 4)},"b":{tensor(0, 4)}}}', data=b"1234"),
    "one name twice": with_header(f'{{"a":{tensor(0, 4)},"a":{tensor(4, 8)}}}', data=b"12345678"),
    "a hole": with_header(f'{{"a":{tensor(4, 8)}}}', data=b"12345678"),
    "a shape that overflows": with_header(f'{{"a":{tensor(0, 4, f"[{2**62},4]")}}}', data=b"1234"),
    "a dtype that is none": with_header(f'{{"a":{tensor(0, 4, dtype="OBJECT")}}}', data=b"1234"),
    "tensors of nobody": with_header(f'{{"a":{tensor(0, 4)}}}', data=b"1234"),
    "no tensors": with_header("{}"),
    "json of deep lists": b"[" * DEEP + b"]" * DEEP,
    "json of deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "json null": b"null",
    "json list": b"[1, 2, 3]\n",
    "json list of pairs": b'[["a", 1], ["b", 2]]\n',
    "json text": b'"text"\n',
    "json object": b"{}\n",
    "json of numbers": b'{"step": NaN, "files": {"model.safetensors": -Infinity}}\n',
    "json of a long number": b'{"format": ' + b"9" * 5000 + b"}\n",
    "json for jsonpickle": b'{"py/reduce": [{"py/type": "os.system"}, {"py/tuple": ["true"]}]}\n',
    "yaml target": b"_target_: os.system\ncommand: 'true'\nmodel: {_target_: subprocess.run}\n",
    "yaml bomb": b"a0: &a0 [x, x]\n"
    + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)),
    "yaml deep": b"a: " + b"[" * DEEP,
    "yaml that holds itself": b"&a {model: *a}\n",
    "yaml cut short": b"model: {d_model: 32",
}


def payload(name: str, marker: Path) -> bytes:
    return RUNNING[name][0](str(marker)) if name in RUNNING else MALFORMED[name]


def test_there_are_dozens() -> None:
    assert len(RUNNING) >= 25
    assert len(MALFORMED) >= 30


@pytest.mark.parametrize("name", RUNNING)
def test_a_payload_runs_where_it_is_let(name: str, tmp_path: Path) -> None:
    """The check below can fail: a reader that unpickles does what the payload says."""
    make, run = RUNNING[name]
    try:
        run(make(str(tmp_path / "marker")))
    except (EOFError, pickle.UnpicklingError):
        assert name == "pickle without its end"
    assert (tmp_path / "marker").exists()


# The folders -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A run, its shards and a Hugging Face folder, and the words that make commands read them."""

    root: Path
    words: tuple[str, ...]

    @property
    def run(self) -> Path:
        return self.root / "runs/a"

    @property
    def newest(self) -> Path:
        return self.run / "checkpoints" / NEWEST

    @property
    def shards(self) -> Path:
        (folder,) = (self.root / "shards").glob("text-*")
        return folder

    @property
    def hub(self) -> Path:
        return self.root / "hub"

    @property
    def marker(self) -> Path:
        return self.root / "marker"

    def command(self, verb: str, *more: str) -> list[str]:
        given = {word.partition("=")[0] for word in more}
        words = [word for word in self._words(verb) if word.partition("=")[0] not in given]
        return [verb.partition(" ")[0], *words, *more]

    def _words(self, verb: str) -> list[str]:
        folders = [f"runs_dir={self.root}/runs", f"shards_dir={self.root}/shards"]
        train = [*self.words, *folders, "trainer.max_steps=9"]
        start = [word for word in train if not word.startswith(("model.", "tokenizer"))]
        return {
            "train": [*train, "name=a"],
            "train from": [*start, "name=c", f"init_from={self.run}"],
            "train hub": [*start, "name=b", f"init_from={self.hub}"],
            "generate": [f"run={self.run}", "max_new_tokens=4", "seed=1"],
            "evaluate": [f"run={self.run}"],
            "runs": folders[:1],
            "runs compare": [*folders[:1], f"run=[{self.run},{self.root}/runs/other]"],
        }[verb]


def write_hub(folder: Path) -> None:
    """A tiny Llama with a tokenizer, in Hugging Face's files."""
    folder.mkdir()
    bytelevel = tokenizers.pre_tokenizers.ByteLevel
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer, bpe.decoder = bytelevel(add_prefix_space=False), tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=260, initial_alphabet=bytelevel.alphabet(), special_tokens=["<eos>"], show_progress=False
    )
    bpe.train_from_iterator(["def spam(eggs): return eggs\n"], trainer)
    bpe.save(str(folder / "tokenizer.json"))
    model_config = ModelConfig(
        d_model=16, n_layers=1, n_heads=1, d_ff=32, context_length=32, vocab_size=bpe.get_vocab_size()
    )
    theirs, config = to_huggingface(Transformer(model_config), model_config, model_type="llama")
    save_file({name: t.clone().contiguous() for name, t in theirs.items()}, folder / "model.safetensors")
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer_config.json", {"eos_token": "<eos>"})
    write_json(folder / "special_tokens_map.json", {"eos_token": "<eos>"})


@pytest.fixture(scope="module")
def made(tiny_words: tuple[str, ...], text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The folders as they should be."""
    root = tmp_path_factory.mktemp("made")
    own = {"samples.every_n_steps": "4", "data.paths": f"[{text_folder}/*.txt]"}
    words = [w for w in tiny_words if w.partition("=")[0] not in own] + [f"{k}={v}" for k, v in own.items()]
    world = World(root, tuple(words))
    assert main(world.command("train", "trainer.max_steps=8")) == 0
    assert (world.run / "checkpoints" / OLDER).is_dir()
    write_hub(world.hub)
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> Iterator[World]:
    """Copies of the folders, to be spoilt; at the end nothing may have run."""
    one = World(tmp_path / "w", made.words)
    renew(made, one)
    yield one
    assert not one.marker.exists()


def renew(made: World, world: World) -> None:
    for name in ("runs", "shards", "hub"):
        shutil.rmtree(world.root / name, ignore_errors=True)
        shutil.copytree(made.root / name, world.root / name)
    change_json(world.run / "run.json", lambda record: record["data"].update(folder=str(world.shards)))
    shutil.copytree(world.run, world.root / "runs/other")


def change_json(path: Path, change: Callable[[Any], Any]) -> None:
    content = read_json(path)
    change(content)
    write_json(path, content)


def vouch(listing: Path, path: Path) -> None:
    """Let a manifest or an index vouch for a planted file."""
    data = path.read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    name = path.relative_to(listing.parent).as_posix()
    change_json(listing, lambda content: content["files"].update({name: entry}))


# The places --------------------------------------------------------------------------------------------------------

Plant = Callable[[World, bytes], list[list[str]]]
ALL = ("train", "generate", "evaluate", "runs", "runs compare")


def at(path: str, *verbs: str, absent: str = "") -> Plant:
    """Plant at `path` of the world; `absent` is taken away."""

    def plant(world: World, data: bytes) -> list[list[str]]:
        place = resolve(world, path)
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)
        if absent:
            resolve(world, absent).unlink()
        return [world.command(verb) for verb in verbs]

    return plant


def resolve(world: World, path: str) -> Path:
    first, _, rest = path.partition("/")
    return Path(getattr(world, first)) / rest


def vouched(path: str, listing: str, *verbs: str) -> Plant:
    def plant(world: World, data: bytes) -> list[list[str]]:
        commands = at(path, *verbs)(world, data)
        vouch(resolve(world, listing), resolve(world, path))
        return commands

    return plant


def at_the_end(path: str, *verbs: str) -> Plant:
    """As `at`, for a run that has nothing left to train."""

    def plant(world: World, data: bytes) -> list[list[str]]:
        at(path)(world, data)
        return [world.command(verb, "trainer.max_steps=8") for verb in verbs]

    return plant


def named(word: str, *verbs: str) -> Plant:
    """A file that the command itself names."""

    def plant(world: World, data: bytes) -> list[list[str]]:
        place = world.root / "last.ckpt"
        place.write_bytes(data)
        return [world.command(verb, f"{word}={place}") for verb in verbs]

    return plant


def sharded_weights(world: World, data: bytes) -> list[list[str]]:
    (world.hub / "model.safetensors").unlink()
    (world.hub / "pytorch_model-00001.bin").write_bytes(data)
    weight_map = {"model.embed_tokens.weight": "pytorch_model-00001.bin"}
    write_json(world.hub / "model.safetensors.index.json", {"weight_map": weight_map})
    return [world.command("train hub")]


MANIFEST, INDEX = "newest/manifest.json", "shards/index.json"
# Places where the command can't go on, for want of what was replaced.
ENDS: dict[str, Plant] = {
    "vouched model": vouched(
        "newest/model.safetensors", MANIFEST, "train", "train from", "generate", "evaluate"
    ),
    "vouched optimizer": vouched("newest/optimizer.safetensors", MANIFEST, "train"),
    "vouched random state": vouched("newest/rng_00000.safetensors", MANIFEST, "train"),
    "resume names it": named("resume", "train"),
    "checkpoint names it": named("checkpoint", "generate", "evaluate"),
    "init_from names it": named("init_from", "train hub"),
    "run.json": at("run/run.json", "train", "evaluate"),
    "tokenizer": at("run/tokenizer/tokenizer_hash.json", "train from", "generate", "evaluate"),
    "evaluation.json": at("run/evaluation.json", "evaluate"),
    "hub model.safetensors": at("hub/model.safetensors", "train hub"),
    "hub pytorch_model.bin": at("hub/pytorch_model.bin", "train hub", absent="hub/model.safetensors"),
    "hub index": at("hub/model.safetensors.index.json", "train hub", absent="hub/model.safetensors"),
    "hub shard": sharded_weights,
    "hub config.json": at("hub/config.json", "train hub"),
    "hub tokenizer.json": at("hub/tokenizer.json", "train hub"),
    "shards index": at("shards/index.json", "train", "evaluate"),
    "shards tokens": at("shards/train.tokens.bin", "train", "evaluate"),
    "shards documents": at("shards/validation.documents.bin", "train", "evaluate"),
    "shards tokenizer": at("shards/tokenizer/tokenizer_hash.json", "train", "evaluate"),
    "shards vouched tokenizer": vouched("shards/tokenizer/tokenizer_hash.json", INDEX, "evaluate"),
}
# Places where it goes on without: something good stands behind, or it isn't read.
GOES_ON: dict[str, Plant] = {
    "model": at("newest/model.safetensors", *ALL),
    "optimizer": at("newest/optimizer.safetensors", *ALL),
    "random state": at("newest/rng_00000.safetensors", *ALL),
    "manifest": at(MANIFEST, *ALL),
    "pickles beside the weights": at("newest/pytorch_model.bin", *ALL),
    "last.ckpt": at("run/checkpoints/last.ckpt", *ALL),
    "model.ckpt": at("run/model.ckpt", *ALL),
    "metrics.csv": at("run/metrics.csv", *ALL),
    "samples.jsonl": at("run/samples.jsonl", *ALL),
    "results.json": at("run/results.json", *ALL),
    "run.json, listed": at("run/run.json", "runs", "runs compare", "generate"),
    "config.yaml, listed": at("run/config.yaml", "runs", "runs compare", "generate", "evaluate"),
    "hub training_args.bin": at("hub/training_args.bin", "train hub"),
    "hub pytorch_model.bin beside": at("hub/pytorch_model.bin", "train hub"),
    "manifest, begun from": at(MANIFEST, "train from"),
    "results.json, ended": at_the_end("run/results.json", "train"),
    "shards verified": at("shards/.verified.json", "train", "evaluate"),
    "shards file hashes": at("root/shards/file_hashes.sqlite", "train"),
}
# Places where what is planted may by chance be fit.
EITHER: dict[str, Plant] = {
    "config.yaml": at("run/config.yaml", "train"),
    "hub tokenizer_config.json": at("hub/tokenizer_config.json", "train hub"),
    "hub special_tokens_map.json": at("hub/special_tokens_map.json", "train hub"),
    "shards vouched tokens": vouched("shards/train.tokens.bin", INDEX, "train"),
    "shards vouched validation": vouched("shards/validation.tokens.bin", INDEX, "evaluate", "train"),
    "shards vouched documents": vouched("shards/train.documents.bin", INDEX, "train", "evaluate"),
}


def outcomes(
    world: World, plant: Plant, data: bytes, capsys: pytest.CaptureFixture[str]
) -> Iterator[tuple[str, int]]:
    """The verb and exit code of each command that reads what was planted; each ends by words of its own."""
    for command in plant(world, data):
        code = main(command)
        error = capsys.readouterr().err
        assert code in (0, 1, 2)
        assert ("error: " in error) == bool(code), error
        assert "Traceback" not in error
        assert not world.marker.exists(), command
        yield command[0], code


def check(name: str, place: str, made: World, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """What runs elsewhere is refused where it is needed, and passed over where it isn't."""
    for verb, code in outcomes(world, PLACES[place], payload(name, world.marker), capsys):
        if name in RUNNING and place in ENDS:
            assert code, verb
        if name in RUNNING and place in GOES_ON:
            assert not code, verb


PLACES = {**ENDS, **GOES_ON, **EITHER}
# Each place with a payload that runs and one that is malformed, or (where every command trains on, which takes its
# time) one of the two; so that every payload has its turn.
TURNS = [
    (list(names)[number % len(names)], place)
    for first, names in enumerate((RUNNING, MALFORMED))
    for number, place in enumerate([*ENDS, *EITHER, *list(GOES_ON)[first::2]])
]


def test_every_payload_has_its_turn() -> None:
    assert {name for name, _ in TURNS} == {*RUNNING, *MALFORMED}


@pytest.mark.parametrize(("name", "place"), TURNS)
def test_nothing_that_is_planted_runs(
    name: str, place: str, made: World, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    check(name, place, made, world, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RUNNING, *MALFORMED])
@pytest.mark.parametrize("place", PLACES)
def test_nothing_that_is_planted_anywhere_runs(
    name: str, place: str, made: World, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    check(name, place, made, world, capsys)


# Whole, vouched for, and of a kind that no run writes ---------------------------------------------------------------

EMBEDDING = "embedding.tokens.weight"
WEIGHTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "nan": lambda t: t * float("nan"),
    "infinite": lambda t: t / 0,
    "int": lambda t: t.long(),
    "complex": lambda t: t.to(torch.complex64),
    "bool": lambda t: t > 0,
    "float8": lambda t: t.to(torch.float8_e4m3fn),
}


def change_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    vouch(path.parent / "manifest.json", path)


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(command) in (1, 2)
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_that_are_no_numbers_are_refused(
    kind: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    change_tensors(
        world.newest / "model.safetensors", lambda t: t.update({EMBEDDING: WEIGHTS[kind](t[EMBEDDING])})
    )
    for verb in ("generate", "evaluate", "train from", "train"):
        assert "no finite number" in refused(world.command(verb), capsys)


@pytest.mark.parametrize("kind", ["nan", "complex"])
def test_optimizer_state_that_is_no_number_is_refused(
    kind: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    path = world.newest / "optimizer.safetensors"
    (name,) = [n for n in load_file(path) if n.endswith(f"{EMBEDDING}/exp_avg")]
    change_tensors(path, lambda t: t.update({name: WEIGHTS[kind](t[name])}))
    assert "NaN" in refused(world.command("train"), capsys)


def test_weights_that_overflow_end_by_a_word(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    change_tensors(world.newest / "model.safetensors", lambda t: t["stack.norm.weight"].fill_(3e38))
    assert "not finite" in refused(world.command("generate"), capsys)


SIZES = [
    ("n_layers", 10**9),
    ("n_layers", 10**6),
    ("d_model", 10**18),
    ("d_ff", 10**7),
    ("vocab_size", 10**7),
    ("context_length", 10**12),
    ("n_heads", 0),
    ("rope_scaling", []),
    ("activation", {}),
]


@pytest.mark.parametrize(("key", "value"), SIZES)
def test_a_shape_that_no_weights_fill_is_refused_before_it_is_made(
    key: str, value: Any, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    change_json(world.newest / "manifest.json", lambda manifest: manifest["model"].update({key: value}))
    for verb in ("generate", "evaluate", "train from"):
        refused(world.command(verb), capsys)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", -1),
        ("step", True),
        ("samples", -5),
        ("samples", 10**30),
        ("best", {"step": -1, "val/loss": 1}),
    ],
)
def test_a_manifest_that_counts_what_cannot_be_is_passed_over(
    key: str, value: Any, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    change_json(world.newest / "manifest.json", lambda manifest: manifest.update({key: value}))
    assert main(world.command("train")) == 0
    assert f"it has no good {key}" in capsys.readouterr().out


BAD_CONFIGS = [
    ("model_type", []),
    ("hidden_act", {}),
    ("rope_parameters", [5]),
    ("rope_scaling", {"rope_type": []}),
    ("hidden_size", 10**9),
    ("num_hidden_layers", 10**9),
    ("num_hidden_layers", 10**6),
    ("num_attention_heads", 10**30),
    ("intermediate_size", 10**7),
    ("max_position_embeddings", 10**9),
    ("vocab_size", 10**19),
    ("rms_norm_eps", "x"),
]


@pytest.mark.parametrize(
    ("model_type", "key", "value"),
    [
        *((model_type, *entry) for model_type in ("llama", "qwen3") for entry in BAD_CONFIGS),
        ("qwen3", "layer_types", 5),
        ("qwen3", "layer_types", [{}]),
    ],
)
def test_a_config_json_that_means_nothing_is_refused(
    model_type: str, key: str, value: Any, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    change_json(
        world.hub / "config.json", lambda config: config.update({"model_type": model_type, key: value})
    )
    refused(world.command("train hub"), capsys)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("model", "vocab", "!"), 2**32 - 1),
        (("model", "vocab", "<eos>"), 2**32 - 1),
        (("model", "vocab"), []),
        (("model", "merges"), [["a"]]),
        (("added_tokens", 0, "id"), -1),
        (("decoder",), {"type": "Sequence", "decoders": 5}),
    ],
)
def test_a_tokenizer_json_that_means_nothing_is_refused(
    path: tuple[Any, ...], value: Any, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(content: Any) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = value

    change_json(world.hub / "tokenizer.json", change)
    refused(world.command("train hub"), capsys)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", 5),
        ("derived", []),
        ("resumes", {}),
        ("data", "text"),
        ("created", 5),
        ("status", []),
    ],
)
def test_a_record_of_another_kind_is_refused_and_listed(
    key: str, value: Any, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    change_json(world.run / "run.json", lambda record: record.update({key: value}))
    assert f"no good {key}" in refused(world.command("train"), capsys)
    assert main(world.command("runs")) == 0
    assert main(world.command("runs compare")) == 0


@pytest.mark.parametrize("value", [10**400, float("nan"), -1, "x", None])
def test_a_number_of_parameters_that_is_none_is_told(
    value: Any, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    change_json(world.run / "run.json", lambda record: record.update(parameters=value))
    assert main(world.command("runs")) == 0
    assert "no good parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value"),
    [("precision", "evil"), ("micro_batch_size", 0), ("micro_batch_size", 10**30), ("peak_flops", 0)],
)
def test_what_a_record_says_was_probed_is_probed_anew_where_it_cannot_be(
    key: str, value: Any, world: World
) -> None:
    change_json(world.run / "run.json", lambda record: record["derived"].update({key: value}))
    assert main(world.command("train")) in (0, 2)


READ = {
    "run/run.json": ("train", "evaluate", "runs", "runs compare"),
    "run/config.yaml": ("train", "runs", "runs compare"),
    "run/samples.jsonl": ("runs", "runs compare"),
    "run/metrics.csv": ("runs", "runs compare"),
    "run/evaluation.json": ("evaluate",),
    "run/tokenizer": ("train from", "generate"),
    "run/tokenizer/tokenizer_hash.json": ("train from", "generate"),
    "newest/manifest.json": ("train", "train from", "generate", "runs"),
    "newest/model.safetensors": ("train", "train from", "generate", "runs"),
    "shards/train.tokens.bin": ("train", "evaluate"),
    "shards/.verified.json": ("train", "evaluate"),
    "hub/config.json": ("train hub",),
    "hub/tokenizer.json": ("train hub",),
    "hub/model.safetensors": ("train hub",),
}
NO_FILES: dict[str, Callable[[Path], Any]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        pytest.param(kind, path, marks=() if (i + j) % len(NO_FILES) == 0 else pytest.mark.slow)
        for i, kind in enumerate(NO_FILES)
        for j, path in enumerate(READ)
    ],
)
def test_what_is_no_file_is_neither_waited_for_nor_a_crash(
    kind: str, path: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    def plant(world: World, _: bytes) -> list[list[str]]:
        place = resolve(world, path)
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        NO_FILES[kind](place)
        return [world.command(verb) for verb in READ[path]]

    for verb, code in outcomes(world, plant, b"", capsys):
        assert code == 0 or not verb.startswith("runs")


def test_code_that_comes_with_a_model_is_left_alone(world: World) -> None:
    """The folder of a model that only its own classes could read."""
    (world.hub / "own.py").write_text(f"open({str(world.marker)!r}, 'w')\nclass Own: pass\n")
    kinds = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    own = {"auto_map": {kind: ["own.Own", None] if "Tok" in kind else "own.Own" for kind in kinds}}
    for name in ("config.json", "tokenizer_config.json"):
        change_json(world.hub / name, lambda content: content.update(own))
    assert main(world.command("train hub")) == 0
    (world.hub / "tokenizer.json").unlink()
    shutil.rmtree(world.root / "runs/b")
    assert main(world.command("train hub")) in (1, 2)
    change_json(world.hub / "config.json", lambda content: content.update(model_type="own"))
    assert main(world.command("train hub")) in (1, 2)
