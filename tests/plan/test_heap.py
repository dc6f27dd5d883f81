"""The heap that tensors are placed on, against hand counts and against glibc itself."""

import json
import platform
import random
import subprocess
import sys

import pytest

from llm.plan.heap import LARGE_PAGE, Heap

MIB = 1 << 20
# Replays what it reads on this process's own malloc, which keeps what is freed, and says how far its heap grew.
REPLAY = """
import ctypes, json, sys

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena b c d e f g h i j".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.free.argtypes = [ctypes.c_void_p]
events = json.load(sys.stdin)
libc.mallopt(-4, 0)
libc.mallopt(-1, -1)
before = libc.mallinfo2().arena
place, places = ctypes.c_void_p(), {}
for key, size in events:
    if size:
        aligned = 2 << 20 if size >= 2 << 20 else 64
        assert not libc.posix_memalign(ctypes.byref(place), ctypes.c_size_t(aligned), ctypes.c_size_t(size))
        places[key] = place.value
    else:
        libc.free(places.pop(key))
print(libc.mallinfo2().arena - before)
"""


def like_training(steps=3, layers=6):
    """Sizes as a training step has them, and when each is freed: a few kept, activations, logits, gradients."""
    draw = random.Random(0)
    sizes = [draw.randrange(MIB // 2, 9 * MIB) for _ in range(layers)]
    events = [(("weight", i), size // 4) for i, size in enumerate(sizes)]
    for _ in range(steps):
        for i, size in enumerate(sizes):
            events += [(("kept", i), size), (("passing", i), 2 * size), (("passing", i), 0)]
        events += [("logits", 67 * MIB), ("log", 67 * MIB), ("gradient", 67 * MIB), ("log", 0), ("logits", 0)]
        for i in reversed(range(layers)):
            events += [(("back", i), sizes[i]), (("kept", i), 0), (("more", i), sizes[i] // 3)]
            events += [(("back", i), 0), (("more", i), 0)]
        events.append(("gradient", 0))
    numbers = {}
    return [(numbers.setdefault(key, len(numbers)), size) for key, size in events]


def grown(events, large_pages=True):
    heap = Heap(large_pages)
    for key, size in events:
        heap.resize(key, size)
    return heap.most


def test_what_is_freed_is_taken_again():
    once, often = ([(0, MIB), (0, 0)] * times for times in (1, 50))
    assert grown(often) == grown(once)
    assert MIB <= grown(once) < MIB + 256


def test_the_smallest_hole_is_taken_and_holes_beside_one_another_are_one():
    filled = [(key, MIB) for key in range(6)]
    # A hole of two, and behind it one of one.
    holes = [*filled, (0, 0), (1, 0), (3, 0)]
    assert grown([*holes, (7, MIB), (8, 2 * MIB - 256)]) == grown(filled)
    # Were the larger one begun, no place for the second would be left.
    assert grown([*holes, (8, 2 * MIB - 256), (7, MIB)]) == grown(filled)
    assert grown([*holes, (7, 2 * MIB), (8, 2 * MIB)]) > grown(filled) + MIB


def test_a_tensor_at_a_large_page_wants_a_hole_of_its_size_and_a_page():
    again = [(0, 3 * MIB), (1, 64), (0, 0), (2, 3 * MIB)]
    assert grown(again, large_pages=False) < 3 * MIB + 1024
    assert 3 * MIB + LARGE_PAGE <= grown(again[:1]) <= 3 * MIB + LARGE_PAGE + 256
    assert grown(again) < 2 * (3 * MIB + LARGE_PAGE)


def test_the_largest_that_was_freed_counts_once_more():
    heap = Heap()
    for key, size in [(0, 9 * MIB), (1, 5 * MIB), (1, 0), (2, MIB), (2, 0)]:
        heap.resize(key, size)
    assert heap.most + 5 * MIB <= heap.taken < heap.most + 5 * MIB + 256


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this is about glibc's malloc")
def test_it_grows_as_glibcs_does():
    events = like_training()
    done = subprocess.run(
        [sys.executable, "-c", REPLAY], input=json.dumps(events), capture_output=True, text=True, check=True
    )
    assert grown(events) == pytest.approx(int(done.stdout), rel=0.05)
