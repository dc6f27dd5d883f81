"""Whether a command starts a run or goes on with one, and which changes of config that allows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llm.config.schema import BATCH_KEYS
from llm.errors import CheckpointError, ConfigError
from llm.redaction import redacted
from llm.train import checkpoint
from llm.train.run import Run, flatten

Kind = Literal["safe", "needs allow_changes=true", "refused"]
MISSING = "(not set)"

# What the weights, the data or their order are made of: another value makes another run.
REFUSED = ("model", "task", "adapter", "init_from", "context_length")
# What changes the course of training from here on.
FLAGGED = (
    "optimizer",
    "schedule",
    "seed",
    "data.batch_size",
    "data.repeat_batch",
    "trainer.gradient_clip_val",
    "trainer.precision",
)
# Recorded by what they amount to (`identity`), not by how they are written: a moved folder is the same text.
BY_IDENTITY = ("data", "tokenizer")
LOADER = tuple(sorted(f"data.{key}" for key in BATCH_KEYS))
# About the command, not about the run.
PASSING = ("resume", "allow_changes", "name", "runs_dir", "dry_run", "hang_timeout")


@dataclass(frozen=True)
class Change:
    """One config value that differs from the run's."""

    key: str
    old: Any
    new: Any

    @property
    def kind(self) -> Kind:
        """What resuming with this change takes."""
        if _under(self.key, REFUSED):
            return "refused"
        return "needs allow_changes=true" if _under(self.key, FLAGGED) else "safe"

    def __str__(self) -> str:
        return f"  {self.key}: {self.old} -> {self.new}   ({self.kind})"


@dataclass(frozen=True)
class Start:
    """Where training begins: at `checkpoint`, or at step 0."""

    checkpoint: Path | None = None
    step: int = 0


def _under(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """The values that differ, in the order of their keys."""
    before, after = dict(flatten(old)), dict(flatten(new))
    differing = sorted(
        # A key that came later says null where nothing is as it was without it.
        k
        for k in before.keys() | after.keys()
        if before.get(k) != after.get(k)
    )
    return [
        Change(key, before.get(key, MISSING), after.get(key, MISSING))
        for key in differing
        if _under(key, LOADER) or not _under(key, (*BY_IDENTITY, *PASSING))
    ]


def begin(run: Run, config: dict[str, Any], identity: dict[str, str], say: Callable[[str], None]) -> Start:
    """Decide where `config["resume"]` makes the held `run` begin, and say so.

    Args:
        run: the run's folder, held by this process.
        config: the composed config.
        identity: fingerprints that must not change within a run (data and tokenizer).
        say: shows a line.

    Raises:
        ConfigError: the config differs in a way that this run cannot go on with.
        CheckpointError: there is nothing to resume where something was asked for, or it is damaged.
    """
    resume = config["resume"]
    if resume == "never":
        if run.exists():
            say(f"resume=never: the earlier run was moved to {run.set_aside()}.")
        return Start()
    chosen = _chosen(run, resume, say)
    if chosen is None:
        return Start()
    manifest = checkpoint.verify(chosen)
    own = chosen.parent == run.checkpoints
    _check_identity(manifest, identity, run)
    earlier = run if own else Run(chosen.parent.parent)
    if earlier.exists():
        _check_changes(earlier, config, say)
    # What this folder holds beyond the checkpoint is another course than the one that begins here.
    _set_aside_beyond(run, manifest["step"] if own else -1, say)
    say(f"Resuming from step {manifest['step']} ({chosen}).")
    return Start(chosen, manifest["step"])


def _chosen(run: Run, resume: str, say: Callable[[str], None]) -> Path | None:
    if resume not in ("auto", "must"):
        folder = Path(resume)
        checkpoint.verify(folder)
        return (
            folder.resolve()
            if folder.resolve().parent != run.checkpoints.resolve()
            else run.checkpoints / folder.name
        )
    check_something_to_resume(run, resume)
    return checkpoint.newest(run.checkpoints, say)


def check_something_to_resume(run: Run, resume: str) -> None:
    """Raise CheckpointError where the run must go on and has nothing to go on from; looks at names alone."""
    if resume == "must" and not checkpoint.folders(run.checkpoints):
        raise CheckpointError(
            f"resume=must, but {run.checkpoints} holds no checkpoint. Use resume=auto to start anew."
        )


def _check_identity(known: dict[str, Any], identity: dict[str, str], run: Run) -> None:
    for what, fingerprint in identity.items():
        if known[what] != fingerprint:
            raise ConfigError(
                f"The {what} of this run changed: {known[what]}, now {fingerprint}. A run goes on with what it began "
                f"with. Use name= for a new run, or init_from={run.folder} to start one from its weights."
            )


def _check_changes(run: Run, config: dict[str, Any], say: Callable[[str], None]) -> None:
    # The run's config is written with its secrets redacted, so that is how they compare, and how they are shown.
    # Redacted again, since an older version may have left more of them.
    found = changes(redacted(run.config), redacted(config))
    if not found:
        return
    say("Changed since this run was last started:\n" + "\n".join(map(str, found)))
    if any(change.kind == "refused" for change in found):
        raise ConfigError(
            "Some of these changes cannot be made within a run (see above). Use another name= for a new run, "
            "or resume=never to start this one anew."
        )
    if any(change.kind != "safe" for change in found) and not config["allow_changes"]:
        raise ConfigError(
            "Some of these changes alter the course of training: add allow_changes=true to go on with them."
        )


def _set_aside_beyond(run: Run, step: int, say: Callable[[str], None]) -> None:
    """Move checkpoints after `step` away, so that the next `resume=auto` follows the new course."""
    newer = [folder for folder in checkpoint.folders(run.checkpoints) if checkpoint.step_of(folder) > step]
    valid = [folder for folder in newer if (folder / checkpoint.MANIFEST).is_file()]
    if not valid:
        return
    target = next(p for n in range(1, 10_000) if not (p := run.folder / f"checkpoints.old-{n}").exists())
    target.mkdir()
    for folder in valid:
        folder.rename(target / folder.name)
    say(f"{len(valid)} newer checkpoints were moved to {target}.")
