"""Sending an export to the Hugging Face hub; the token comes from the environment alone, and is written nowhere."""

import os
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from llm.errors import ConfigError, UserError

TOKEN_VARIABLE = "HF_TOKEN"


def check_repo(repo: str) -> None:
    """Raise ConfigError where `repo` is no id of a repository on the hub, such as me/my-model."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"repo={repo}: {error}") from error
    if "/" not in repo:
        raise ConfigError(f"repo={repo}: it needs its owner too, such as me/{repo}.")


def token_from(environment: Mapping[str, str] = os.environ) -> str:
    """The token that may write; a ConfigError where there is none."""
    token = environment.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise ConfigError(
            f"push_to=hub: set {TOKEN_VARIABLE} to a token that may write (huggingface.co/settings/tokens); "
            "dry_run=true shows without one what would be sent."
        )
    return token


def listing(made: Path) -> list[str]:
    """A line for each file of an export, which is a folder or one file: its bytes and its name."""
    files = [made] if made.is_file() else sorted(path for path in made.rglob("*") if path.is_file())
    names = [path.name if path == made else path.relative_to(made).as_posix() for path in files]
    return [f"{path.stat().st_size:>15,}  {name}" for path, name in zip(files, names, strict=True)]


def push(made: Path, repo: str, *, private: bool, token: str, message: str) -> str:
    """Make the repository, unless it is there, and send the export in one commit; returns its address.

    Raises:
        UserError: the hub refuses, or can't be reached.
    """
    api = HfApi(token=token)
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        if made.is_file():
            api.upload_file(
                path_or_fileobj=made, path_in_repo=made.name, repo_id=repo, commit_message=message
            )
        else:
            api.upload_folder(folder_path=made, repo_id=repo, commit_message=message)
    except Exception as error:
        # The client raises many kinds of error, its HTTP library's among them; each means that it isn't all there.
        raise UserError(
            f"The hub took nothing, or not all: {type(error).__name__}: {error}\n  {made} is whole; send it again by: "
            f"hf upload {repo} {made}"
        ) from error
    return str(address)
