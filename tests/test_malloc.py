"""What is set of glibc's malloc, seen in processes of their own."""

import os
import subprocess
import sys

import pytest

from llm.cli.main import program
from llm.malloc import CACHE, TUNABLES, is_glibcs

pytestmark = pytest.mark.skipif(not is_glibcs(), reason="what it sets is glibc's")

# Of each size that is expected in a process of its own, none at first.
FAULTS = """
import os, resource, torch
from llm.malloc import tune_malloc
for largest in (None, 64 << 20, 32 << 20):
    if os.fork():
        os.wait()
        continue
    if largest:
        tune_malloc(largest)
    for _ in range(3):
        torch.ones(16 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16 << 20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, flush=True)
    os._exit(0)
"""
# Says whether a small piece that is freed is malloc's again, or a cache's, which counts as in use.
STARTED = """
import ctypes, os, sys
from llm.malloc import start_again_without_cache
BEFORE
start_again_without_cache()

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "a b c d e f g used h i".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
piece = libc.malloc(600)
used = libc.mallinfo2().used
libc.free(piece)
print(os.getpid(), used - libc.mallinfo2().used >= 600, sys.flags.utf8_mode, *sys.argv[1:])
"""


def run(script, *words, tunables=None):
    """The process of a script and what it printed, started without what these tests were started with."""
    environment = {name: value for name, value in os.environ.items() if name != TUNABLES}
    if tunables is not None:
        environment[TUNABLES] = tunables
    command = [sys.executable, "-X", "utf8", script, *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    return process.pid, process.communicate(timeout=60)[0].split()


@pytest.fixture
def started(tmp_path):
    """A script that starts again, where `before` doesn't keep it from that."""

    def write(before=""):
        path = tmp_path / "started.py"
        path.write_text(STARTED.replace("BEFORE", before))
        return path

    return write


@pytest.mark.parametrize("tunables", [None, "glibc.malloc.arena_max=2"])
def test_a_program_starts_again_as_it_was_but_without_a_cache(started, tunables):
    process, printed = run(started(), "a=b c", "-m", tunables=tunables)
    assert printed == [str(process), "True", "1", "a=b", "c", "-m"]


def test_a_cache_that_somebody_set_stays(started):
    assert run(started(), tunables=f"{CACHE}=7")[1][1] == "False"


@pytest.mark.parametrize("before", ["sys.settrace(lambda *_: None)", "sys.modules['IPython'] = sys"])
def test_a_debugger_and_a_notebook_are_not_started_again(started, before):
    assert run(started(before))[1][1] == "False"


def test_the_settings_of_malloc_that_were_there_stay(started):
    started = started("print(os.environ.get('GLIBC_TUNABLES'))")
    first, second, *_ = run(started, tunables="glibc.malloc.arena_max=2")[1]
    assert (first, second) == ("glibc.malloc.arena_max=2", f"glibc.malloc.arena_max=2:{CACHE}=0")


@pytest.mark.parametrize(("verb", "times"), [("train", 1), ("evaluate", 0)])
def test_training_alone_starts_again(monkeypatch, capsys, verb, times):
    started = []
    monkeypatch.setattr("llm.cli.main.start_again_without_cache", lambda: started.append(verb))
    monkeypatch.setattr(sys, "argv", [f"{verb}.py", "--help"])
    assert program(verb) == 0
    assert len(started) == times


def test_memory_that_is_freed_is_taken_again_without_page_faults():
    said = subprocess.check_output([sys.executable, "-c", FAULTS], text=True)
    unset, as_large, smaller = (int(line) for line in said.split())
    # Ten tensors of 64 MiB are 160 thousand pages of 4 KB, or 320 of 2 MB.
    assert unset >= 320
    assert as_large < 50
    assert smaller >= 320  # nothing as large is expected, so nothing is set
