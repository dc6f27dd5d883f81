"""`llm export`: write a run's model in another format, whole or not at all."""

from pathlib import Path

import torch

from llm import build
from llm.build import Config
from llm.config import Composed
from llm.errors import ConfigError
from llm.files import publish, staging, taken
from llm.hub.export import About
from llm.hub.formats import FORMATS
from llm.hub.push import check_repo, listing, push, token_from
from llm.jobs.scored import Entry
from llm.report.run import entries_of
from llm.tokenizer import load_tokenizer
from llm.train import checkpoint
from llm.train.run import Run

# Of a run's config, what says how the model came about beside its shape; the rest is about folders and what is shown.
SETTINGS = ("seed", "init_from", "tokenizer", "data", "task", "optimizer", "schedule", "trainer")
# The format that takes what was trained beside a model, which all others take folded in.
ADAPTER_ALONE = "peft"


def run(composed: Composed) -> int:
    """Export the run as the command says; returns the exit code."""
    config = composed.config
    out = Path(config["out"]).expanduser()
    if taken(out):
        raise ConfigError(f"out={out}: something is there already. Nothing was written; choose another out=.")
    token = _check_push(config)
    source = Run.open(config["run"])
    read = build.adapted_model if config["format"] == ADAPTER_ALONE else build.trained_model
    net, folder = read(source, config["checkpoint"])
    net = net.cpu().to(getattr(torch, config["dtype"]))
    about = _about(source, folder, out, config)
    try:
        with staging(out) as stage:
            lines = FORMATS[config["format"]](stage, net, load_tokenizer(source.tokenizer), about)
            made = _made(stage, about, config["format"])
            listed = listing(made)
            if not config["dry_run"]:
                publish(made, out)
    except (FileExistsError, PermissionError, NotADirectoryError) as error:
        raise ConfigError(f"out={out}: it can't be written there: {error.strerror}.") from error
    what = f"{source.folder} at step {about.steps:,}, format={config['format']}"
    if config["dry_run"]:
        where = f"{out}, and send to {_address(config)}" if config["push_to"] else str(out)
        print("\n".join([f"Would write {what}, to {where}:", *listed, "Nothing was kept, and nothing sent."]))
        return 0
    print(f"{out}: {what}")
    if token is not None:
        print("\n".join([f"Sending to {_address(config)}:", *listed]), flush=True)
        print(push(out, config["repo"], private=config["private"], token=token, message=what))
    print("\n".join(["\nNext:", *(f"  {line}" for line in lines)]))
    return 0


def _check_push(config: Config) -> str | None:
    """The hub's token, where the export goes there.

    Raises:
        ConfigError: the repository or the token is missing.
    """
    if (config["push_to"] is None) != (config["repo"] is None):
        raise ConfigError("push_to=hub and repo=me/my-model go together: where to, and the name there.")
    if config["push_to"] is None:
        return None
    check_repo(config["repo"])
    return None if config["dry_run"] else token_from()


def _address(config: Config) -> str:
    return f"{config['repo']} on the hub, {'private' if config['private'] else 'for everybody to see'}"


def _made(stage: Path, about: About, format: str) -> Path:
    """What to publish: all of it, or the one file that `out` names by its suffix."""
    files = list(stage.glob(f"*.{format}"))
    return files[0] if about.out.suffix == f".{format}" and len(files) == 1 else stage


def _about(run: Run, folder: Path, out: Path, config: Config) -> About:
    manifest, settings = checkpoint.verify(folder), run.config
    results, scores = (
        [entry for entry in entries_of(path, []) if entry.get("checkpoint") == folder.name]
        for path in (run.results, run.evaluation)
    )
    return About(
        name=run.folder.resolve().name,
        run=run.folder,
        out=out,
        checkpoint=folder.name,
        data=str(run.begun["data"].get("name")),
        steps=manifest["step"],
        samples=manifest["samples"],
        tokens=_tokens(results),
        settings={key: settings[key] for key in SETTINGS if key in settings},
        results=scores,
        shard_bytes=config["shard_bytes"],
    )


def _tokens(results: list[Entry]) -> int | None:
    """How many tokens a checkpoint was trained on, where the results that are of it say so."""
    counts = [entry["metrics"].get("tokens") for entry in results if entry["evaluation"] == "training"]
    return int(counts[0]) if counts else None
