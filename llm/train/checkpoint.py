"""Checkpoints: one folder each, named by its step, whole or absent, checked before it is believed.

step_00000060/
  model.safetensors          weights by canonical name; of a model that is split, shards in a folder model/
  optimizer.safetensors      optimizer state as <parameter name>/<state name>; likewise
  rng_00000.safetensors      one for each rank
  manifest.json              written last: what the checkpoint is, and the SHA-256 of every other file

Whatever strategy wrote it, any other goes on from it: tensors are found by name, and read in the reader's layout.
"""

import random
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from llm.adapter import Lora, merged, n_values
from llm.errors import CheckpointError, ConfigError
from llm.files import read_object, read_tensors, sha256, sync, write_json
from llm.model import ModelConfig, least_parameters
from llm.train.parallel import local, sharded_like
from llm.train.tensors import Stored, write_shards

FORMAT = 1
# What a manifest says beside its files, and of what kind.
ABOUT = {
    "step": int,
    "samples": int,
    "best": dict | None,
    "model": dict,
    "tokenizer": str,
    "data": str,
}
MANIFEST = "manifest.json"
WEIGHTS = "model"
STATE = "optimizer"
MODEL = f"{WEIGHTS}.safetensors"
OPTIMIZER = f"{STATE}.safetensors"
MERSENNE_TWISTER_WORDS = 624
LARGEST_COUNT = 1 << 53  # beyond it, floats count no more

Manifest = dict[str, Any]


def folder_name(step: int) -> str:
    """The name of a step's folder."""
    return f"step_{step:08d}"


def rng_file(rank: int) -> str:
    """The name of a rank's random state."""
    return f"rng_{rank:05d}.safetensors"


class CheckpointWriter:
    """Writes one checkpoint: every rank its own files, rank 0 the shared ones and at last the manifest.

    Args:
        root: the run's checkpoints folder.
        step: the optimizer steps done.

    Call `write` (and `write_shards`) on each rank, then `publish` on rank 0 once every rank has written, or `discard`.
    """

    def __init__(self, root: Path, step: int) -> None:
        self.target = root / folder_name(step)
        self.folder = root / f".{folder_name(step)}.tmp"

    def write(self, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Write each named file of tensors and push it to the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, content in tensors.items():
            save_file(content, self.folder / name)
            sync(self.folder / name)

    def write_shards(self, kinds: dict[str, dict[str, Tensor]]) -> None:
        """Write this rank's share of each kind of tensors, all ranks together; an OSError on one is one on all."""
        for kind, tensors in kinds.items():
            write_shards(self.folder, kind, tensors)
            sync(self.folder / kind)

    def publish(self, about: Manifest) -> Path:
        """Seal the folder with its manifest and give it its name."""
        files = {
            path.relative_to(self.folder).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }
        write_json(self.folder / MANIFEST, {"format": FORMAT, **about, "files": files})
        if self.target.exists():
            remove(self.target)
        self.folder.rename(self.target)
        sync(self.target.parent)
        return self.target

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a checkpoint so that a kill midway leaves nothing that looks like one."""
    going = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(going, ignore_errors=True)
    folder.rename(going)
    shutil.rmtree(going, ignore_errors=True)


def verify(folder: Path) -> Manifest:
    """The manifest of a checkpoint whose every file has the size and SHA-256 that it states.

    Raises:
        CheckpointError: there is no manifest, or a file is missing, cut short or changed.
    """
    manifest = read_manifest(folder)
    for name, stated in manifest["files"].items():
        _verify_file(folder / name, stated)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint, whose files are not looked at.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder} is no checkpoint: it holds no {MANIFEST}.")
    try:
        manifest = read_object(path)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}).") from None
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{folder} has format {manifest.get('format')}; this version reads {FORMAT}.")
    if wrong := [name for name, fits in _fits(manifest).items() if not fits]:
        raise CheckpointError(f"{path} is damaged (it has no good {', '.join(wrong)}).")
    return manifest


def _fits(manifest: Manifest) -> dict[str, bool]:
    """Whether each part of a manifest is of the kind that it should be."""
    best, files = manifest.get("best"), manifest.get("files")
    fits = {name: name in manifest and isinstance(manifest[name], kind) for name, kind in ABOUT.items()}
    for name in ("step", "samples"):
        fits[name] = _is_count(manifest.get(name))
    if isinstance(best, dict):
        fits["best"] = _is_count(best.get("step")) and isinstance(best.get("val/loss"), float | int)
    fits["files"] = isinstance(files, dict) and all(
        _is_inside(name) and isinstance(stated, dict) and stated.keys() >= {"bytes", "sha256"}
        for name, stated in files.items()
    )
    return fits


def _is_inside(name: str) -> bool:
    """Whether this names a file of the folder, or of one for shards, and nothing outside."""
    return re.fullmatch(rf"(({WEIGHTS}|{STATE})/)?[\w-][\w.-]*", name, re.ASCII) is not None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST_COUNT


def _verify_file(path: Path, stated: dict[str, Any]) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing.")
    if path.stat().st_size != stated["bytes"]:
        raise CheckpointError(
            f"{path} has {path.stat().st_size} bytes, not the {stated['bytes']} it was saved with."
        )
    if sha256(path) != stated["sha256"]:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in {MANIFEST}.")


def steps(root: Path) -> list[Path]:
    """The checkpoint folders under `root`, newest first."""
    return sorted(root.glob("step_" + "[0-9]" * 8), reverse=True)


def step_of(folder: Path) -> int:
    """The step that a checkpoint folder's name states."""
    return int(folder.name.removeprefix("step_"))


def newest(root: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that verifies, or None; each damaged one passed over is said.

    Raises:
        CheckpointError: there are checkpoints and all are damaged.
    """
    found = steps(root)
    for folder in found:
        try:
            verify(folder)
            return folder
        except CheckpointError as error:
            say(f"Passing over a damaged checkpoint: {error}")
    if found:
        raise CheckpointError(
            f"All {len(found)} checkpoints in {root} are damaged. Use resume=never to start anew "
            "(the folder is moved aside, not deleted)."
        )
    return None


def find(root: Path, which: str | None) -> Path:
    """The checkpoint under `root` that `which` names, checked.

    Args:
        root: a run's checkpoints folder.
        which: `best` for the lowest validation loss, a step folder's name, a path, or None for the newest good one.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    if which is None or which == "best":
        folder = newest(root, print)
        if folder is None:
            raise CheckpointError(f"{root} holds no checkpoint yet: the run has not reached its first save.")
        if which is None:
            return folder
        best = verify(folder)["best"]
        if best is None:
            raise CheckpointError(f"{root} has no best checkpoint: the run has not validated, or keeps none.")
        return find(root, folder_name(best["step"]))
    folder = root / which if (root / which).exists() else Path(which)
    verify(folder)
    return folder


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read one safetensors file on the CPU.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return read_tensors(path)
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read ({error}).") from None


def read_model(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The shape and the weights of a checkpoint, which is checked; adapters are folded in.

    Raises:
        CheckpointError: it is damaged, or holds too little for its shape.
        ConfigError: its shape is none.
    """
    shape, tensors = read_parts(folder)
    return shape, _merged(folder, tensors)


def read_parts(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """As `read_model`, but what was trained beside the weights stays beside them."""
    shape = ModelConfig.from_dict(verify(folder)["model"])
    stored = Stored(folder, WEIGHTS)
    # Before anybody makes a model of that size.
    if sum(n_values(*named) for named in stored.tensors.items()) < least_parameters(shape):
        raise CheckpointError(f"{folder / MODEL} holds too little for the model that {MANIFEST} describes.")
    return shape, stored.read_whole()


def adapter_of(folder: Path) -> Lora | None:
    """The adapter of a checkpoint, which is not looked at beyond that; None where it has none.

    Raises:
        CheckpointError: its settings are none.
    """
    settings = read_manifest(folder).get("adapter")
    try:
        return None if settings is None else Lora(**settings)
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is damaged: its adapter is none ({error}).") from error


def _merged(folder: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    lora = adapter_of(folder)
    try:
        return tensors if lora is None else merged(tensors, lora)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{folder} is damaged: its adapter is of another model ({error}).") from error


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights by name, a tied one once."""
    return {name: p.detach() for name, p in model.named_parameters()}


def restore_weights(model: nn.Module, folder: Path) -> None:
    """Fill the model's parameters, however they are laid out, from a checkpoint.

    Raises:
        CheckpointError: as `load_weights`.
    """
    load_weights(model, Stored(folder, WEIGHTS).read_like(dict(model.named_parameters())), folder)


def load_weights(model: nn.Module, tensors: dict[str, Tensor], origin: Path) -> None:
    """Copy `tensors`, whole or laid out as the parameters are, into the model's parameters.

    Raises:
        CheckpointError: a name or shape differs, or a value is not finite; the model is then unchanged.
    """
    own = dict(model.named_parameters())
    check_names({n: p.shape for n, p in own.items()}, {n: t.shape for n, t in tensors.items()}, origin)
    _check_values(own, tensors, origin)
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(sharded_like(tensors[name], parameter))


def check_names(own: dict[str, torch.Size], found: dict[str, torch.Size], origin: Path) -> None:
    """Refuse weights of another model.

    Raises:
        CheckpointError: a name or shape differs.
    """
    if own != found:
        wrong = sorted(own.keys() ^ found.keys()) or sorted(n for n in own if own[n] != found[n])
        raise CheckpointError(
            f"{origin} holds another model: {', '.join(wrong[:4])} differ in name or shape."
        )


def _check_values(own: Mapping[str, Tensor], tensors: dict[str, Tensor], origin: Path) -> None:
    """Refuse what is no finite number, and what is no code where `own` holds codes."""
    strange = sorted(
        name
        for name, tensor in tensors.items()
        if not (_is_finite(tensor) if own[name].is_floating_point() else tensor.dtype == own[name].dtype)
    )
    if strange:
        raise CheckpointError(f"{origin} is damaged: {', '.join(strange[:4])} hold what is no finite number.")


def _is_finite(tensor: Tensor) -> bool:
    # Floats of one byte are written by nobody here, and torch can't judge them.
    return tensor.is_floating_point() and tensor.element_size() > 1 and bool(local(tensor).isfinite().all())


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `<parameter name>/<state name>`; learning rates and the like belong to the config."""
    return _flat(_named_state(model, optimizer))


def restore_optimizer(model: nn.Module, optimizer: Optimizer, folder: Path) -> None:
    """Fill the optimizer's state, however it is laid out, from a checkpoint.

    Raises:
        CheckpointError: as `load_optimizer_state`.
    """
    load_optimizer_state(model, optimizer, Stored(folder, STATE).read_like(optimizer_state(model, optimizer)))


def load_optimizer_state(model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_state` gave, by parameter name, keeping the optimizer's own settings.

    Raises:
        CheckpointError: it isn't the state of such an optimizer.
    """
    named = _named_state(model, optimizer)
    _check_state(_flat(named), {name for name, _ in model.named_parameters()}, tensors)
    named["state"] = {}
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        named["state"].setdefault(name, {})[key] = value
    set_optimizer_state_dict(model, optimizer, named)


def _check_state(own: dict[str, Tensor], parameters: set[str], tensors: dict[str, Tensor]) -> None:
    """Refuse state that lacks what the optimizer needs, or is of other shapes or parameters."""
    strange = {path for path in tensors if path.rpartition("/")[0] not in parameters}
    missing = own.keys() - tensors.keys()
    # What `read_like` found no place for is on meta.
    misshapen = {n for n, t in tensors.items() if t.is_meta or (n in own and own[n].shape != t.shape)}
    # Squares may overflow, but no optimizer makes a NaN of finite gradients.
    wrong = strange or misshapen or missing or {n for n, t in tensors.items() if _has_nan(t)}
    if wrong:
        raise other_optimizer(wrong)


def other_optimizer(wrong: Iterable[str]) -> CheckpointError:
    """What to raise where these tensors of a checkpoint are not this optimizer's."""
    return CheckpointError(
        f"The checkpoint's {OPTIMIZER} is of another optimizer or model: {', '.join(sorted(wrong)[:4])} differ in "
        "name or shape, or are NaN. init_from= takes the weights alone."
    )


def _has_nan(tensor: Tensor) -> bool:
    return tensor.is_complex() or bool(local(tensor).isnan().any())


def _flat(named: dict[str, Any]) -> dict[str, Tensor]:
    return {f"{name}/{key}": value for name, state in named["state"].items() for key, value in state.items()}


def _named_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    return dict(get_optimizer_state_dict(model, optimizer, options=StateDictOptions()))


def random_state() -> dict[str, Tensor]:
    """This process's random states: torch, its accelerator, NumPy and Python."""
    _, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, internal, gauss_next = random.getstate()
    states = {
        "torch": torch.get_rng_state(),
        "numpy.keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy.rest": torch.tensor([position, has_gauss, gauss], dtype=torch.float64),
        "python": torch.tensor([version, *internal], dtype=torch.int64),
        "python.gauss": torch.tensor([] if gauss_next is None else [gauss_next], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_state(states: dict[str, Tensor]) -> None:
    """Put back what `random_state` gave.

    Raises:
        CheckpointError: it is something else.
    """
    try:
        _set_random_state(states)
    except (LookupError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"The checkpoint's random state cannot be put back: {error}.") from error


def _set_random_state(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["torch"])
    position, has_gauss, gauss = states["numpy.rest"].tolist()
    keys = states["numpy.keys"].numpy().astype(np.uint32)
    # NumPy takes any position, and reads there.
    if not 0 <= position <= MERSENNE_TWISTER_WORDS:
        raise ValueError(f"position {position:g} of {MERSENNE_TWISTER_WORDS}")
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), gauss))  # noqa: NPY002
    version, *internal = states["python"].tolist()
    random.setstate((version, tuple(internal), next(iter(states["python.gauss"].tolist()), None)))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def expendable(root: Path, keep_last: int, keep_every: int | None, best: int | None) -> Iterator[Path]:
    """The checkpoints that retention lets go: not among the last, the best, or every n-th step."""
    for folder in steps(root)[keep_last:]:
        step = step_of(folder)
        if step != best and not (keep_every and step % keep_every == 0):
            yield folder
