"""What a process does with gradients and weights around its passes: nothing of its own, or DDP's buckets."""

from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn

from llm.plan.layout import Layout
from llm.plan.ledger import Ledger
from llm.train.optimizers import OptimizerFactory
from llm.train.sharding import local


class Replica:
    """A process whose weights and gradients lie where autograd leaves them; FSDP2 sees to its own.

    Args:
        net: the model, laid out.
        optimizer: makes the optimizer of its parameters.
        layout: how the model lies over processes.
        ledger: where all of it is booked.
    """

    def __init__(self, net: nn.Module, optimizer: OptimizerFactory, layout: Layout, ledger: Ledger) -> None:
        self.layout, self.ledger = layout, ledger
        self.parameters = list(net.parameters())
        self.optimizer = optimizer(net.named_parameters())
        self.is_last = False

    def begin(self) -> None:
        """A step begins."""

    def forward(self) -> None:
        """A forward pass begins."""

    def backward(self, is_last: bool) -> None:
        """A backward pass begins, the step's last or not."""
        self.is_last = is_last

    def close(self) -> None:
        """A backward pass is over."""

    def update(self) -> None:
        """The optimizer takes its step, and lets go of the gradients."""
        self.optimizer.step()
        self.mark_states()
        self.optimizer.zero_grad()

    def mark_states(self, kind: str = "optimizer") -> None:
        """Say what the optimizer's state is for."""
        states = (value for state in self.optimizer.state.values() for value in state.values())
        self.ledger.mark((local(value) for value in states if isinstance(value, Tensor)), kind)


class Buckets(Replica):
    """DDP: gradients are summed over all processes in buckets, once a step, and stay in them."""

    def __init__(self, net: nn.Module, optimizer: OptimizerFactory, layout: Layout, ledger: Ledger) -> None:
        super().__init__(net, optimizer, layout, ledger)
        self.bucket: Tensor | None = None
        trained = [parameter for parameter in self.parameters if parameter.requires_grad]
        places = accumulate((p.numel() for p in trained), initial=0)
        for place, parameter in zip(places, trained, strict=False):
            parameter.register_post_accumulate_grad_hook(partial(self._reduce, place))

    def begin(self) -> None:
        """Make the buckets, which stay."""
        if self.bucket is None:
            trained = [parameter for parameter in self.parameters if parameter.requires_grad]
            self.bucket = torch.empty(sum(p.numel() for p in trained), dtype=trained[0].dtype)
            self.ledger.mark([self.bucket], "gradients")

    def _reduce(self, place: int, parameter: Tensor) -> None:
        """Let the bucket hold a gradient once it goes to the other processes."""
        if self.bucket is not None and self.is_last:
            parameter.grad = self.bucket[place : place + parameter.numel()].view_as(parameter)
            self.ledger.send_once(2 * self.layout.ring_fraction * parameter.nbytes)
