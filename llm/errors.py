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
