"""Renders one chat template that its first line of input brings, for each chat that a further line brings, in JSON.

What takes too much time or memory ends the process: time is CPU time, so that it doesn't matter what else the machine does.
This file imports nothing of ours, so that it starts at once.
"""

import json
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_MEMORY = 2**29  # bytes of addresses
MOST_SECONDS = 1.0
MOST_CHARACTERS = 2**23


def compiled(template: str) -> Callable[[list[Any], bool], str]:
    """What renders messages by a template, in Jinja's sandbox."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _refuse
    made = environment.from_string(template)
    return lambda messages, ask: made.render(messages=messages, add_generation_prompt=ask)


def _refuse(message: Any) -> NoReturn:
    raise jinja2.TemplateRuntimeError(str(message).rstrip("."))


def main() -> None:
    """Answer each line of standard input by one of standard output, until the input ends."""
    import resource  # not where there is no Unix
    import signal

    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    render: Callable[[list[Any], bool], str] | None = None
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        asked, text = json.loads(line), ""
        try:
            if render is None:
                render = compiled(asked["template"])
            else:
                text = render(asked["messages"], asked["ask"])
            wrong = f"it writes {len(text)} characters" if len(text) > MOST_CHARACTERS else ""
        except Exception as error:
            wrong = str(error) or type(error).__name__
        print(json.dumps({"error": wrong} if wrong else {"text": text}), flush=True)
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main()
