"""The errors that a person may see: each says what is wrong, where, and what to do, and knows its exit code."""


class UserError(Exception):
    """Something that the user can mend; shown without a traceback."""

    exit_code = 1


class ConfigError(UserError):
    """The command or the config is wrong; nothing was started."""

    exit_code = 2


class DataError(UserError):
    """A corpus, shard or tokenizer is missing, damaged or unfit."""


class CheckpointError(UserError):
    """A checkpoint or run folder is missing, damaged or of another model."""


class TrainingError(UserError):
    """Training had to stop, for instance because the loss was no longer finite."""


def missing_package(what: str, package: str, extra: str, instead: str = "") -> ConfigError:
    """An error that says how to get a package which one of our extras brings.

    Args:
        what: what needs it, such as `logger=wandb`.
        package: its name.
        extra: the extra.
        instead: another way out, as the rest of the sentence.
    """
    return ConfigError(f"{what} needs the package {package}: {install_command(extra)}{instead}.")


def install_command(extra: str) -> str:
    """What brings an extra of ours, typed in a checkout: the `llm` of PyPI is another project."""
    return f"pip install -e '.[{extra}]'"
