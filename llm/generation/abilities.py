"""What a model can do with a text, as its config says."""

from llm.model import Transformer


def goes_on(model: Transformer) -> bool:
    """Whether a model goes on from a prompt; the others read a text whole, as `llm.generation.answer` asks them to."""
    return model.config.architecture == "decoder" and not model.config.labels


def writes(model: Transformer) -> bool:
    """Whether a model writes token by token, be it on from a prompt or a target for a source."""
    return model.config.architecture != "encoder" and not model.config.labels
