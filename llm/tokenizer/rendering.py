"""Chat templates at work: our own in this process, any other in one of its own, with little time and memory for it."""

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm.tokenizer.rendering_process import compiled

Message = Mapping[str, str]  # a role and its content
# From messages, and whether the assistant is to go on from them, to a text.
Render = Callable[[Sequence[Message], bool], str]
PROCESS = Path(__file__).with_name("rendering_process.py")


class RenderingError(Exception):
    """A template can't be read, or takes no such chat."""


def render_here(template: str) -> Render:
    """The rendering of a template that is known to end.

    Raises:
        RenderingError: it isn't Jinja; a chat that it doesn't take raises this too.
    """
    render = _told(compiled)(template)
    return lambda messages, ask: _told(render)(list(messages), ask)


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*given: Any) -> Any:
        try:
            return function(*given)
        except Exception as error:  # whatever a program in Jinja may raise
            raise RenderingError(str(error) or type(error).__name__) from error

    return call


class RenderElsewhere:
    """The same of a template that somebody else wrote: a program, which may never end or want all memory there is."""

    def __init__(self, template: str) -> None:
        self._template = template
        self._lock = threading.Lock()
        self._process, self._owner = self._started(), os.getpid()

    def __call__(self, messages: Sequence[Message], ask: bool) -> str:
        """The text of a chat; a RenderingError where the template takes none such, or too much time or memory."""
        asked = {"messages": [dict(message) for message in messages], "ask": ask}
        with self._lock:
            # A process that forked from the one that began this can't share its pipes.
            if self._process.poll() is not None or self._owner != os.getpid():
                self._end()
                self._process, self._owner = self._started(), os.getpid()
            return _answered(self._process, asked)

    def _started(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-I", str(PROCESS)]
        # A session of its own: Ctrl-C is for whoever asks.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._end = weakref.finalize(self, _end, process, os.getpid())
        _answered(process, {"template": self._template})
        return process


def _answered(process: "subprocess.Popen[str]", asked: dict[str, Any]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    if not line:
        process.wait()
        raise RenderingError("it takes too long, or too much memory")
    answer = json.loads(line)
    if "error" in answer:
        raise RenderingError(answer["error"])
    text: str = answer["text"]
    return text


def _end(process: "subprocess.Popen[str]", owner: int) -> None:
    """End a process and close its pipes, in the process that began it."""
    if owner == os.getpid():
        process.kill()
        process.communicate()
