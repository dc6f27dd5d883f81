"""The heap that tensors are placed on, against hand counts and against glibc itself."""

import json
import os
import random
import subprocess
import sys

import pytest

from llm.malloc import CACHE, GIVEN_BACK, TUNABLES, is_glibcs
from llm.plan.heap import GLOO_THREADS, LARGE, PAGE, THREAD_HEAP, Heap

MIB = 1 << 20
# What torch makes with a tensor that is no tensor: its storage, itself, its sizes and strides, autograd's node for it.
OBJECTS = (96, 176, 16, 24, 208)
# Replays what it reads on this process's own malloc, as training sets it, and says how far its heap grew; beside each
# tensor it makes what torch does.
REPLAY = """
import ctypes, json, sys
from llm.malloc import tune_malloc

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena b c d e f g h i j".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.free.argtypes = [ctypes.c_void_p]
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
events, objects = json.load(sys.stdin)
tune_malloc(64 << 20)
before = libc.mallinfo2().arena
place, places = ctypes.c_void_p(), {}
for key, size in events:
    if size:
        aligned = 4096 if size >= 2 << 20 else 64
        assert not libc.posix_memalign(ctypes.byref(place), ctypes.c_size_t(aligned), ctypes.c_size_t(size))
        places[key] = [place.value, *map(libc.malloc, objects)]
    else:
        for piece in places.pop(key):
            libc.free(piece)
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


def grown(events, keeps=True, large_pages=True):
    placed = Heap(keeps, large_pages)
    for key, size in events:
        placed.resize(key, size)
    return placed.most


@pytest.mark.parametrize("size", [MIB, 9 * MIB])
def test_what_is_freed_is_taken_again(size):
    # What was left behind the first one went to the second, so that its place is a little too small for the next.
    first, second, often = ([(0, size), (1, MIB), (0, 0)] * times for times in (1, 2, 50))
    assert size + MIB <= grown(first) < size + MIB + 2 * PAGE
    assert grown(second) == grown(often) < 2 * size + MIB + 4 * PAGE


def test_the_smallest_hole_is_taken_and_holes_beside_one_another_are_one():
    filled = [(key, MIB) for key in range(6)]
    # A hole of two, and behind it one of one.
    holes = [*filled, (0, 0), (1, 0), (3, 0)]
    assert grown([*holes, (7, MIB - 256), (8, 2 * MIB - 256)]) == grown(filled)
    # Were the larger one begun, no place for the second would be left.
    assert grown([*holes, (8, 2 * MIB - 256), (7, MIB - 256)]) == grown(filled)
    assert grown([*holes, (7, 2 * MIB), (8, 2 * MIB)]) > grown(filled) + MIB


def test_tensors_for_large_pages_begin_at_a_page():
    size = LARGE + PAGE // 2
    assert grown([(0, size)], large_pages=False) < size + PAGE
    assert grown([(0, size)]) >= size + PAGE // 2


def test_what_is_kept_stays_and_what_is_not_goes_back():
    large = GIVEN_BACK + MIB
    again = [(0, large), (3, MIB), (0, 0), (1, MIB), (2, large)]
    assert grown(again, keeps=True) > 2 * large
    # It is a place of its own, which the kernel gets back.
    assert grown(again, keeps=False) < large + 2 * MIB + 4 * PAGE


def test_gloos_threads_keep_what_they_copied():
    kept, given_back = Heap(keeps=True), Heap(keeps=False)
    for heap in (kept, given_back):
        heap.gather(9 * MIB)
        heap.gather(MIB)
        assert heap.most == GLOO_THREADS * 9 * MIB
        heap.gather(GIVEN_BACK)
    assert kept.most == GLOO_THREADS * GIVEN_BACK
    # A place of its own, while it is there.
    assert given_back.most == GLOO_THREADS * 9 * MIB + GIVEN_BACK


@pytest.mark.skipif(not is_glibcs(), reason="this is about glibc's malloc")
@pytest.mark.parametrize("size", [{}, {"steps": 2}, {"layers": 12}, {"steps": 5, "layers": 3}])
def test_it_grows_as_glibcs_does(size):
    events = like_training(**size)
    done = subprocess.run(
        [sys.executable, "-c", REPLAY],
        input=json.dumps([events, OBJECTS]),
        env={**os.environ, TUNABLES: f"{CACHE}=0"},
        capture_output=True,
        text=True,
        check=True,
    )
    print(grown(events) / int(done.stdout))
    assert grown(events) == pytest.approx(int(done.stdout), rel=0.05)


def test_what_is_reserved_counts_as_far_as_it_is_written():
    for heap in (Heap(keeps=True), Heap(keeps=False)):
        heap.reserve(0, 100 * MIB)
        heap.resize(1, MIB)
        assert MIB <= heap.most < MIB + 2 * PAGE
        heap.write(0, 10 * MIB)
        heap.write(0, 5 * MIB)
        assert 11 * MIB <= heap.most < 11 * MIB + 3 * PAGE
        heap.free(0)
        heap.resize(2, 20 * MIB)
        assert heap.most < (21 * MIB if heap.keeps else 22 * MIB) + 4 * PAGE
        assert heap.most > 20 * MIB


def test_what_gloo_gathers_beyond_a_threads_heap_is_the_kernels():
    heap = Heap(keeps=True)
    heap.resize(0, MIB)
    heap.gather(THREAD_HEAP)
    heap.gather(THREAD_HEAP)
    assert THREAD_HEAP + MIB <= heap.most < THREAD_HEAP + MIB + 2 * PAGE
