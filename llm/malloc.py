"""glibc's malloc as training on a CPU wants it, which takes the same tensors in each step; elsewhere nothing changes."""

import ctypes
import os
import sys
from itertools import chain

# Parameters of mallopt, by glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
# Bytes above which glibc always gives memory back: the most that its threshold grows to.
GIVEN_BACK = 32 << 20
# What glibc reads when a process starts, and the setting in it that turns a thread's cache of small pieces off.
TUNABLES, CACHE = "GLIBC_TUNABLES", "glibc.malloc.tcache_count"
# The small objects that holes are made for: of each size in bytes so many bytes of holes.
SMALL = (*range(24, 1040, 16), *range(1288, 4096, 256))
HOLES = 64 << 10


def is_glibcs() -> bool:
    """Whether malloc is glibc's."""
    # musl knows the name, and has no value for it.
    name = "CS_GNU_LIBC_VERSION"
    return name in getattr(os, "confstr_names", {}) and bool(os.confstr(name))


def start_again_without_cache() -> None:
    """Have this program start anew, as the same process, with no cache of small pieces; nothing, where it has none,
    or where a debugger or a notebook runs it.

    What is left beside a tensor's place is small, and a thread's cache keeps it from the tensor that comes next: the
    heap of the default model grew by a fifth (benchmarks/plan.md). glibc reads the setting at the start alone. Call it
    before anything is done.
    """
    tunables = os.environ.get(TUNABLES, "")
    # These would begin anew as well, and forget what was done in them.
    is_inside = sys.gettrace() or "IPython" in sys.modules
    if not is_glibcs() or CACHE in tunables or is_inside or not sys.executable:
        return
    os.environ[TUNABLES] = ":".join(filter(None, (tunables, f"{CACHE}=0")))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def is_kept(largest: int) -> bool:
    """Whether `tune_malloc` keeps what is freed, where the largest tensor has so many bytes."""
    return largest > GIVEN_BACK and is_glibcs()


def tune_malloc(largest: int) -> None:
    """Set malloc for training steps of which the `largest` tensor has so many bytes.

    Where glibc would give it back to the kernel at once, and get it anew in each step, page by page and zeroed, what is
    freed is kept: it was a quarter of a step at 124 million parameters (benchmarks/throughput.md). Small objects get a
    place of their own, where they don't cost more than they save. Elsewhere than with glibc nothing changes.
    """
    if not is_glibcs():
        return
    libc = ctypes.CDLL(None)
    if is_kept(largest):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
    if largest > HOLES * len(SMALL):
        _make_holes(libc)


def give_back_freed_memory() -> None:
    """Give the kernel what this process has freed so far; elsewhere than with glibc nothing changes."""
    if is_glibcs():
        ctypes.CDLL(None).malloc_trim(0)


def _make_holes(libc: ctypes.CDLL) -> None:
    """Free 5 MB in places that are too small for tensors; small objects then go there, and not between tensors."""
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
    sizes = chain.from_iterable([size] * (HOLES // size) for size in SMALL)
    # The byte behind each stays, so that holes beside one another don't become one.
    holes = [(libc.malloc(size), libc.malloc(1)) for size in sizes]
    for hole, _ in holes:
        libc.free(hole)
