"""DeepSpeed's ZeRO, imitated: the tensors that its engine makes of a model, as deepspeed 0.19 with Lightning's settings."""

import math
from collections import Counter

import torch
from torch import Tensor, nn

from llm.model import Transformer
from llm.plan.gathering import Gathering, follow
from llm.plan.layout import Layout
from llm.plan.ledger import Ledger, Reserve
from llm.plan.replica import Replica
from llm.train.optimizers import OptimizerFactory
from llm.train.zero import MOMENTS, STEP, own_frozen

# Lightning's reduce_bucket_size, in values; on a CPU a bucket is in memory as far as it is written to.
BUCKET = 200_000_000


class Zero(Replica):
    """What all stages do: gradients go through buckets, and each process updates its share of float32 weights."""

    n_buckets: int

    def __init__(self, net: nn.Module, optimizer: OptimizerFactory, layout: Layout, ledger: Ledger) -> None:
        super().__init__(net, optimizer, layout, ledger)
        self.groups: list[list[Tensor]] = [list(group["params"]) for group in self.optimizer.param_groups]
        self.dtype = self.groups[0][0].dtype
        self.pending: list[Tensor] = []
        self.waiting: list[Tensor] = []
        self.buffers: list[Tensor | Reserve] = []
        for parameter in (p for group in self.groups for p in group):
            parameter.register_post_accumulate_grad_hook(self._reduce)

    @property
    def n_pending(self) -> int:
        """The values in the bucket."""
        return sum(parameter.numel() for parameter in self.pending)

    def make(self, numel: int, kind: str, dtype: torch.dtype | None = None) -> Tensor:
        """A flat tensor on the device."""
        tensor = torch.empty(numel, dtype=dtype or self.dtype)
        self.ledger.mark([tensor], kind)
        return tensor

    def make_offloaded(self, numel: int, kind: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """One that lies on the host where the strategy offloads; a CPU is its own host."""
        return self.make(numel, "host" if self.layout.uses_host else kind, dtype)

    def share_of(self, numel: int) -> int:
        """The values of a process of so many."""
        return math.ceil(numel / self.layout.world_size)

    def share_out(self) -> None:
        """Let the optimizer work on this process's shares in float32, a flat one a group."""
        for group, parameters in zip(self.optimizer.param_groups, self.groups, strict=True):
            numel = sum(self.share_of(p.numel()) for p in parameters)
            share = nn.Parameter(self.make_offloaded(numel, "weights"))
            group["params"] = [share]
            # Made before the first step, as `ZeroState` does.
            moments = {key: torch.zeros_like(share) for key in MOMENTS}
            self.optimizer.state[share] = {STEP: torch.zeros(()), **moments}
        self.mark_states()

    def make_buckets(self) -> None:
        """Make those that gradients are copied to, unless they are there."""
        if self.buffers:
            return
        if self.layout.accelerator == "cpu":
            self.buffers = [Reserve(self.ledger, BUCKET * self.dtype.itemsize) for _ in range(self.n_buckets)]
        else:
            self.buffers = [self.make(BUCKET, "buffers") for _ in range(self.n_buckets)]

    def _reduce(self, parameter: Tensor) -> None:
        if not self.reduces_now():
            return
        self.make_buckets()
        if self.pending and self.n_pending + parameter.numel() > BUCKET:
            self.flush()
            self.buffers.reverse()  # the next one, where there are two
        self.pending.append(parameter)
        if parameter.numel() > BUCKET:
            return
        if isinstance(self.buffers[0], Reserve):
            self.buffers[0].write(self.n_pending * self.dtype.itemsize)
        parameter.grad = None  # it is in the bucket

    def reduces_now(self) -> bool:
        """Whether this pass's gradients go to the other processes."""
        return True

    def flush(self) -> None:
        """Send the bucket and keep this process's share."""
        raise NotImplementedError

    def update_groups(self) -> None:
        """Update one group after the other, each from gradients in float32 that are made for it."""
        groups = self.optimizer.param_groups
        for group in groups:
            share = group["params"][0]
            if self.layout.parallelism.offload:
                share.grad = self.host_gradient(share)
            else:
                flat = self.make(share.numel(), "gradients")
                share.grad = flat.to(share.dtype)
                self.ledger.mark([share.grad], "gradients")
                del flat
            self.optimizer.param_groups = [group]
            self.optimizer.step()
            share.grad = None
        self.optimizer.param_groups = groups
        self.mark_states()

    def host_gradient(self, share: Tensor) -> Tensor:
        """The float32 gradient of a share that is there all the time."""
        raise NotImplementedError

    def mark_states(self, kind: str = "optimizer") -> None:
        """The optimizer's state lies where its weights do."""
        super().mark_states("host" if self.layout.uses_host else kind)


class WholeWeights(Zero):
    """Stages 1 and 2: the weights are whole, in a flat tensor a group; of gradients a process keeps its share."""

    n_buckets = 2

    def __init__(self, net: nn.Module, optimizer: OptimizerFactory, layout: Layout, ledger: Ledger) -> None:
        super().__init__(net, optimizer, layout, ledger)
        self.flat = [self._flatten(group) for group in self.groups]
        self.share_out()
        self.own = [self._own(group) for group in self.groups]
        self.shares: list[Tensor] = []
        self.kept: Tensor | None = None
        if layout.parallelism.offload:
            largest = max(p.numel() for group in self.groups for p in group)
            for group in self.optimizer.param_groups:
                numel = group["params"][0].numel()
                self.waiting += [
                    self.make_offloaded(numel, "gradients"),
                    self.make_offloaded(numel, "buffers", self.dtype),
                ]
            self.waiting += [
                self.make_offloaded(largest, "buffers", self.dtype),
                self.make(largest, "buffers"),
            ]

    def _flatten(self, group: list[Tensor]) -> Tensor:
        flat = self.make(sum(p.numel() for p in group), "weights")
        begin = 0
        for parameter in group:
            parameter.data = flat[begin : begin + parameter.numel()].view_as(parameter)
            begin += parameter.numel()
        return flat

    def _own(self, group: list[Tensor]) -> list[Tensor]:
        """Those whose beginning at least is in the first process's share."""
        room = self.share_of(sum(p.numel() for p in group))
        begins, begin = [], 0
        for parameter in group:
            begins.append(begin)
            begin += parameter.numel()
        return [p for p, begin in zip(group, begins, strict=True) if begin < room]

    def reduces_now(self) -> bool:
        """Stage 1 sends whole gradients, once a step."""
        return self.layout.parallelism.zero_stage > 1 or self.is_last

    def flush(self) -> None:
        """Sum the bucket over all processes, in a copy of it."""
        copied = self.make(self.n_pending, "buffers")
        # Stage 1 does so once a step.
        send = self.ledger.send if self.layout.parallelism.zero_stage > 1 else self.ledger.send_once
        send(2 * self.layout.ring_fraction * copied.nbytes)
        del copied
        if not self.shares and not self.layout.parallelism.offload:
            own = sum(p.numel() for group in self.own for p in group)
            self.shares = [self.make(own, "gradients")]
        if self.layout.parallelism.zero_stage > 1:
            for parameter in self.pending:
                parameter.grad = None
        self.pending = []

    def close(self) -> None:
        """Send what is left, and add up this process's share."""
        if not self.reduces_now():
            return
        self.flush()
        for group in self.groups:
            for parameter in group:
                parameter.grad = None
        self.buffers = []
        if self.shares and self.kept is None:
            self.kept = self.shares[0]
        self.shares = []

    def host_gradient(self, share: Tensor) -> Tensor:
        """Made at the beginning."""
        return next(t for t in self.waiting if t.numel() == share.numel() and t.dtype == share.dtype)

    def update(self) -> None:
        """Take the norm in float64, a gradient at a time; update; gather the weights."""
        if not self.layout.parallelism.offload:
            room = [self.share_of(sum(p.numel() for p in group)) for group in self.groups]
            self.make(
                max(min(p.numel(), most) for own, most in zip(self.own, room, strict=True) for p in own),
                "buffers",
                torch.float64,
            )
        self.update_groups()
        self.kept = None
        self.ledger.send_once(self.layout.ring_fraction * sum(flat.nbytes for flat in self.flat))


def frozen_copies(net: nn.Module, dtype: torch.dtype, layout: Layout, ledger: Ledger) -> list[Tensor]:
    """What stages 1 and 2 keep, in `dtype`, of the frozen weights that they round: the first process's share.

    It lies on the host, so that there is nothing of it on an accelerator.
    """
    if layout.accelerator != "cpu":
        return []
    copies = [
        torch.empty(weight.shape, dtype=dtype if weight.is_floating_point() else weight.dtype)
        for weight in own_frozen(net, 0, layout.world_size).values()
    ]
    ledger.mark(copies, "weights")
    return copies


class ZeroShares(Zero):
    """Stage 3: a process has its share of each weight, and gathers the others' while it needs them."""

    n_buckets = 1
    gathering: Gathering | None = None

    def __init__(self, net: nn.Module, optimizer: OptimizerFactory, layout: Layout, ledger: Ledger) -> None:
        super().__init__(net, optimizer, layout, ledger)
        ledger.ignore(self.parameters)
        numel: Counter[torch.dtype] = Counter()
        for parameter in self.parameters:
            numel[parameter.dtype] += self.share_of(parameter.numel())
        self.share_out()
        trained = sum(group["params"][0].numel() for group in self.optimizer.param_groups)
        self.weights = [self.make_offloaded(n, "weights", dtype) for dtype, n in numel.items()]
        self.waiting = [self.make_offloaded(trained, "gradients", self.dtype)]
        if layout.parallelism.offload:
            self.waiting += [
                self.make_offloaded(group["params"][0].numel(), "gradients")
                for group in self.optimizer.param_groups
            ]
        self.make_buckets()

    def gather_weights(self, net: Transformer) -> None:
        """Gather what modules need as they run."""
        self.gathering = Gathering(net, self.layout, self.ledger)
        follow(net, self.gathering)

    def forward(self) -> None:
        """A forward pass begins."""
        if self.gathering is not None:
            self.gathering.begin()

    def flush(self) -> None:
        """Sum the bucket over all processes, in a copy of it that has each one's share together."""
        copied = self.make(self.n_pending, "buffers")
        self.ledger.send(self.layout.ring_fraction * copied.nbytes)
        if self.layout.accelerator == "cpu":
            self.make(self.n_pending, "buffers")  # gloo scatters the sum of a copy
        for parameter in self.pending:
            parameter.grad = None
        self.pending = []

    def close(self) -> None:
        """Send what is left."""
        if self.pending:
            self.flush()
        if self.gathering is not None:
            self.gathering.close()

    def host_gradient(self, share: Tensor) -> Tensor:
        """Made at the beginning."""
        return next(t for t in self.waiting[1:] if t.numel() == share.numel())

    def update(self) -> None:
        """Take the norm in float64, a share at a time, and update."""
        largest = max(p.numel() for group in self.groups for p in group)
        self.make(self.share_of(largest), "buffers", torch.float64)
        if self.gathering is not None:
            self.gathering.let_all_go()
        self.update_groups()
        if self.gathering is not None:
            self.gathering.settle()
