"""What of a model's context a prompt leaves, and the refusal of what doesn't fit into it."""

from collections.abc import Sized

from llm.errors import ConfigError


class ContextError(ConfigError):
    """There are more tokens than the model's context has."""


def room_after(prompt: Sized, context: int) -> int:
    """How many tokens may follow a prompt in a context of so many; 0 or less where none may."""
    return context - len(prompt)


def check_fits(
    context: int, given: int, new: int = 0, *, what: str = "The text", advice: str | None = None
) -> None:
    """Refuse `given` tokens with `new` ones behind them where the context has fewer; `what` is their name.

    Raises:
        ContextError: with the lengths and `advice`, by default to shorten the text.
    """
    if given + new > context:
        tokens = "1 token" if given == 1 else f"{given} tokens"
        behind = f" and is to have {new} more" if new else ""
        advice = advice or f"Shorten it{', or ask for fewer' if new else ''}."
        raise ContextError(f"{what} has {tokens}{behind}; the model's context_length is {context}. {advice}")
