"""The books of a traced step: every tensor that lives, by what it is for, the most at a time, and what is sent."""

import math
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, fields
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from llm.plan.heap import Heap

PLAIN = {Tensor, nn.Parameter, FakeTensor}
# Operators by which FSDP2 gathers weights and scatters gradients.
SHARDING = ("fsdp", "c10d")
MESSAGE = -1  # the key of a message on the heap: no storage's, as those below it are that are reserved


@dataclass(frozen=True)
class Memory:
    """Bytes in one process, by what they are for.

    `buffers` are weights that are gathered while they are used, messages, and what the update itself takes; `gaps` are
    what a CPU's allocator holds between tensors; `host` is what an accelerator's host holds for it.
    """

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    logits: int = 0
    buffers: int = 0
    gaps: int = 0
    host: int = 0

    @property
    def total(self) -> int:
        """All that lies on the device: what the program itself takes is not counted."""
        return sum(astuple(self)) - self.host

    @property
    def tensors(self) -> int:
        """The same, without what lies between them."""
        return self.total - self.gaps


KINDS = tuple(field.name for field in fields(Memory))


class Reserve:
    """A buffer on a CPU, of which is in memory what was written to.

    Args:
        ledger: where it is booked, as long as this lives.
        size: its bytes.
    """

    def __init__(self, ledger: "Ledger", size: int) -> None:
        self.ledger = ledger
        self.key = ledger.reserve(size)
        weakref.finalize(self, ledger.drop, self.key)

    def write(self, size: int) -> None:
        """Write to it from its beginning, up to `size` bytes."""
        self.ledger.write(self.key, size)


class Ledger(TorchDispatchMode):
    """Books the storages that operators make within, until they are freed, whether they hold anything or not.

    What is made is of the present `kind` until it is `mark`ed as another, and counts at the present `moment`. `peaks`
    has the most that lived at each moment, `sent` the bytes that this process sends in its passes, by the parallelism that
    wants it, and `sent_once` those of the step's end.

    Args:
        heap: where what is booked is placed as well.
        deadline: when the monotonic clock passes it, the next part of the step raises TimeoutError.
    """

    def __init__(self, heap: Heap | None = None, deadline: float = math.inf) -> None:
        super().__init__()
        self.heap, self.deadline = heap, deadline
        self.kind = "buffers"
        self.moment = ""
        self.peaks: dict[str, Memory] = {}
        self.sent: Counter[str] = Counter()
        self.sent_once: Counter[str] = Counter()
        self._held: dict[int, tuple[weakref.ref | None, str, int]] = {}
        self._live: Counter[str] = Counter()
        self._ignored: set[int] = set()
        self._most: dict[str, int] = {}
        self._reserves = count(MESSAGE - 1, -1)

    def __enter__(self) -> "Ledger":
        with ExitStack() as patches:
            patches.enter_context(_resizing_told(self._measure))
            patches.enter_context(_shapes_aside())
            self._patches = patches.pop_all()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._patches.close()
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not PLAIN.issuperset(types):
            return NotImplemented  # what a DTensor does is told again in plain tensors
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0  # a tensor without storage has no value, and memory depends on none
        result = func(*args, **(kwargs or {}))
        self._book(result)
        if func.namespace in SHARDING:
            self._mark_messages(func, args, kwargs or {})
        if func.namespace in ("c10d", "_c10d_functional"):
            self._note_sent(func, args, result)
        return result

    @property
    def live(self) -> Memory:
        """What lives now."""
        return Memory(**self._live)

    @property
    def gaps(self) -> int:
        """How much more the heap takes than what lived on it at a time."""
        return 0 if self.heap is None else max(0, self.heap.most - max(self._most.values()))

    def at(self, kind: str, moment: str) -> None:
        """From here what is made is of this kind, and counts at this moment."""
        # Not where an operator is told: torch calls some from where an exception ends the process.
        if time.monotonic() > self.deadline:
            raise TimeoutError("tracing a training step takes longer than it may")
        self.kind, self.moment = kind, moment
        self._note_peak()

    def mark(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Say what tensors are for, from now on."""
        for tensor in tensors:
            key = tensor.untyped_storage()._cdata
            if key in self._held:
                reference, before, size = self._held[key]
                self._held[key] = reference, kind, size
                self._live[before] -= size
                self._live[kind] += size
        self._note_peak()

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Book these no more, as long as this ledger is in use."""
        for tensor in tensors:
            key = tensor.untyped_storage()._cdata
            self.drop(key)
            self._ignored.add(key)

    def forget_peaks(self) -> None:
        """Begin anew to look for the most, from what lives now."""
        self.peaks.clear()
        self._most.clear()

    def forget_sent(self) -> None:
        """Begin anew to add up what is sent."""
        self.sent.clear()
        self.sent_once.clear()

    def send(self, size: float) -> None:
        """Note bytes of weights or gradients that go to other processes in a pass, which no operator tells of."""
        self.sent["data"] += size  # type: ignore[assignment]

    def send_once(self, size: float) -> None:
        """Note those that go once a step."""
        self.sent_once["data"] += size  # type: ignore[assignment]

    def gather(self, size: int, ring_fraction: float) -> None:
        """Note that so many bytes are put together, of which this fraction comes from others: no operator tells of it."""
        self.send(ring_fraction * size)
        if self.heap is not None:
            self._copy_message(self.heap, size, is_gathered=True)

    def reserve(self, size: int) -> int:
        """The key of a buffer that is not in memory yet."""
        key = next(self._reserves)
        self._held[key] = None, "buffers", 0
        if self.heap is not None:
            self.heap.reserve(key, size)
        return key

    def write(self, key: int, size: int) -> None:
        """Note that it was written to, up to `size` bytes."""
        _, kind, before = self._held[key]
        self._held[key] = None, kind, max(size, before)
        self._live[kind] += max(0, size - before)
        if self.heap is not None:
            self.heap.write(key, size)
        self._note_peak()

    def drop(self, key: int) -> None:
        """What had this key lives no longer."""
        if key in self._held:
            _, kind, size = self._held.pop(key)
            self._live[kind] -= size
            if self.heap is not None:
                self.heap.free(key)

    def _book(self, result: Any) -> None:
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._measure(tensor.untyped_storage())

    def _measure(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._ignored:
            return
        reference, kind, before = self._held.get(key, (None, self.kind, 0))
        if reference is not None and before == size:
            return
        reference = reference or weakref.ref(storage, lambda _: self.drop(key))
        self._held[key] = reference, kind, size
        self._live[kind] += size - before
        if self.heap is not None:
            self.heap.resize(key, size)
        self._note_peak()

    def _note_peak(self) -> None:
        total = sum(self._live.values()) - self._live["host"]
        # Of equal ones the later, of which is known what is for what.
        if total >= self._most.get(self.moment, 0):
            self._most[self.moment] = total
            self.peaks[self.moment] = self.live

    def _mark_messages(self, func: Any, args: Any, kwargs: Any) -> None:
        """What FSDP2 gathers and sends is neither activation nor logits; what it scatters are gradients."""
        tensors = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)]
        passing = [t for t in tensors if self._kind_of(t) in ("activations", "logits")]
        self.mark(passing, "buffers")
        if "reduce_scatter" in str(func):
            self.mark([min(tensors, key=Tensor.numel)], "gradients")

    def _kind_of(self, tensor: Tensor) -> str | None:
        return self._held.get(tensor.untyped_storage()._cdata, (None, None, 0))[1]

    def _note_sent(self, func: Any, args: Any, result: Any) -> None:
        """Each process of n sends (n - 1) / n of the whole for a gather or a scatter, by rings, and twice for a sum."""
        name = str(func)
        sizes = [
            math.prod(t.shape) * t.itemsize for t in tree_leaves((args, result)) if isinstance(t, Tensor)
        ]
        if not sizes:
            return
        whole, part = max(sizes), min(sizes)
        what = "data" if func.namespace == "c10d" else "tensor"
        if "all_reduce" in name or "allreduce" in name:
            self.sent[what] += 2 * whole
        elif "gather" in name or "scatter" in name:
            self.sent[what] += whole - part
            if self.heap is not None:
                self._copy_message(self.heap, round(whole), is_gathered="gather" in name)

    def _copy_message(self, heap: Heap, size: int, is_gathered: bool) -> None:
        """Gloo gathers into a copy, and sums one that it then scatters; both are gone when the operator is."""
        self._live["buffers"] += size
        self._note_peak()
        if is_gathered:
            heap.gather(size)
        else:
            heap.resize(MESSAGE, size)
            heap.free(MESSAGE)
        self._live["buffers"] -= size


@contextmanager
def _resizing_told(told: Callable[[torch.UntypedStorage], None]) -> Iterator[None]:
    """Within, whatever resizes a storage is `told`: no operator is, and FSDP2 frees and takes back gathered weights so."""
    resize = torch.UntypedStorage.resize_

    def resized(storage: torch.UntypedStorage, size: int) -> Any:
        result = resize(storage, size)
        told(storage)
        return result

    torch.UntypedStorage.resize_ = resized  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign]


@contextmanager
def _shapes_aside() -> Iterator[None]:
    """Within, DTensor finds the shape of a result out of every mode's sight.

    It tries the operator on tensors of the whole shape, without storage, and remembers what came of it: booked, they made
    the first trace of a process differ from those behind it.
    """
    find = ShardingPropagator._propagate_tensor_meta_non_cached

    def aside(propagator: ShardingPropagator, schema: Any) -> Any:
        with _disable_current_modes():
            return find(propagator, schema)

    ShardingPropagator._propagate_tensor_meta_non_cached = aside  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ShardingPropagator._propagate_tensor_meta_non_cached = find  # type: ignore[method-assign]
