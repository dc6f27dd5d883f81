"""A process that has imported what training takes, and forks a copy of itself for each command line that it is given.

Importing torch, Lightning and DeepSpeed takes some ten seconds of a core, for each process of each training command; a
fork takes milliseconds. The copy stands where Python stands before a script's first line: it has the command's
arguments, environment, folder and open files, and it ends as Python ends. What a library reads of the environment while
it is imported is the server's. `client.py` asks.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# What training processes import, or import first.
MODULES = (
    "llm.cli.main",
    "llm.cli.compose",
    "llm.cli.sweep",
    "llm.jobs.train",
    "llm.jobs.generate",
    "torch.distributed.run",
    "deepspeed",
    "pytest",
)
LONGEST_REQUEST = 2**20  # bytes

Request = dict[str, Any]


def warm() -> None:
    """Import everything, and start no thread, since a fork copies none."""
    for name in MODULES:
        if find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)
    from llm.cli.compose import compose
    from llm.jobs import train

    # Hydra looks for its plugins once a process.
    compose("train", [])
    # As in the fixture `unplanned`.
    train.expected = lambda job, derived, step: {}
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        sys.exit(f"{threads - 1} threads run after the imports: a fork would not have them.")
    # What is there now stays; copies need not look through it.
    gc.collect()
    gc.freeze()


class Server:
    """Forks for clients, and tells them how their copies ended, until its standard input ends.

    Args:
        listener: where clients connect.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.clients: dict[int, socket.socket] = {}
        self.selector = selectors.DefaultSelector()
        self.ended, self.note = socket.socketpair()
        self.note.setblocking(False)
        signal.set_wakeup_fd(self.note.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> Request | None:
        """What to run, in a copy; None in the server itself, at its end."""
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.selector.register(self.ended, selectors.EVENT_READ, self.reap)
        self.selector.register(sys.stdin, selectors.EVENT_READ, self.stop)
        while True:
            for key, _ in self.selector.select():
                if (request := key.data()) is not None:
                    return request or None

    def stop(self) -> Request:
        """End what still runs."""
        for pid in self.clients:
            kill(pid)
        return {}

    def accept(self) -> Request | None:
        """Fork for a client; its request, in the copy alone."""
        client, _ = self.listener.accept()
        text, files, _, _ = socket.recv_fds(client, LONGEST_REQUEST, 3)
        if not text:
            client.close()
            return None
        pid = os.fork()
        if pid == 0:
            # A group of its own, so that all that it starts can be ended with it.
            os.setsid()
            for number, file in enumerate(files):
                os.dup2(file, number)
        else:
            self.clients[pid] = client
            self.selector.register(client, selectors.EVENT_READ, lambda: self.pass_on(pid, client))
        for file in files:
            os.close(file)
        if pid:
            return None
        self.leave(client)
        return json.loads(text)

    def leave(self, client: socket.socket) -> None:
        """Keep nothing of the server open in a copy."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.selector.close()
        for held in (client, self.listener, self.ended, self.note, *self.clients.values()):
            held.close()

    def pass_on(self, pid: int, client: socket.socket) -> None:
        """Send the copy the signal that its client got; a client that is gone was killed."""
        if signum := client.recv(16):
            os.kill(pid, int(signum))
        else:
            self.selector.unregister(client)
            kill(pid)

    def reap(self) -> None:
        """Tell clients how their copies ended."""
        self.ended.recv(4096)
        for pid in list(self.clients):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                client = self.clients.pop(pid)
                with contextlib.suppress(KeyError):
                    self.selector.unregister(client)
                with contextlib.suppress(OSError):
                    client.send(str(os.waitstatus_to_exitcode(status)).encode())
                client.close()


def kill(pid: int) -> None:
    """End a copy and all in its group."""
    os.kill(pid, signal.SIGKILL)
    # It may not have made its group yet.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def run(request: Request) -> None:
    """Do what Python does with a command line: a script, `-m` and a module, or `-c` and code."""
    arguments = [word for word in request["arguments"] if word != "-u"]
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.executable = request["executable"]
    search = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[:0] = [os.getcwd(), *search]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path[:0] = ["", *search]
        exec(arguments[1], {"__name__": "__main__"})
    else:
        sys.argv = arguments
        sys.path[:0] = [str(Path(arguments[0]).resolve().parent), *search]
        runpy.run_path(arguments[0], run_name="__main__")


def main() -> None:
    """Serve on the socket whose file number is the only argument."""
    server = Server(socket.socket(fileno=int(sys.argv[1])))
    # Clients wait meanwhile.
    warm()
    request = server.serve()
    if request is not None:
        run(request)


if __name__ == "__main__":
    main()
