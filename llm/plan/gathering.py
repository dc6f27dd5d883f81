"""What DeepSpeed's stage 3 gathers of a model, and when: the coordinator of its hooks, imitated (deepspeed 0.19)."""

import math
import warnings
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from llm.model import Transformer
from llm.plan.layout import Layout
from llm.plan.ledger import Ledger, Memory
from llm.train.sharding import blocks

# DeepSpeed's stage3_param_persistence_threshold, _max_reuse_distance, _prefetch_bucket_size and _max_live_parameters, in
# values: weights of no more stay whole, others as long as they are used again within so many, so many are gathered ahead,
# and no more than so many are whole for it.
PERSISTENT, REUSED, PREFETCHED, LIVE = 100_000, 1_000_000_000, 50_000_000, 1_000_000_000


class Message:
    """Weights of one dtype that are gathered at once: flat, until they are looked at.

    One alone is whole where it arrives. Of several each is copied out of the flat tensor, which is there until the last of
    them has been asked for.

    Args:
        parameters: the weights, as the model has them.
        layout: how many processes have a share of each.
        ledger: where all of it is booked.
    """

    def __init__(self, parameters: list[nn.Parameter], layout: Layout, ledger: Ledger) -> None:
        self.parameters, self.ledger = parameters, ledger
        self.is_open = False
        n = self.n_processes = layout.world_size
        self.flat = self._make(n * sum(math.ceil(p.numel() / n) for p in parameters))
        ledger.gather(self.flat.nbytes, layout.ring_fraction)

    def open(self) -> dict[nn.Parameter, Tensor]:
        """The weights by themselves, where they were not looked at before."""
        if self.is_open:
            return {}
        self.is_open = True
        if len(self.parameters) == 1:
            return {self.parameters[0]: self.flat}
        return {parameter: self._make(parameter.numel()) for parameter in self.parameters}

    def _make(self, numel: int) -> Tensor:
        # A process alone has all of its share, and looks at that.
        made = torch.empty(numel if self.n_processes > 1 else 0, dtype=self.parameters[0].dtype)
        self.ledger.mark([made], "buffers")
        return made


class Gathering:
    """The weights that are whole in a process while modules run.

    The first forward and backward pass are recorded. From then on what comes next is gathered ahead, and what is needed
    again soon stays.

    Args:
        net: the model, without storage.
        layout: how many processes there are.
        ledger: where all of it is booked.
    """

    def __init__(self, net: Transformer, layout: Layout, ledger: Ledger) -> None:
        self._layout, self._ledger = layout, ledger
        self._own = {module: list(module.parameters(recurse=False)) for module in net.modules()}
        if net.unembedding is not None:
            # It is looked up outside of the module that it belongs to.
            self._own[net] += net.embedding.tokens.parameters()
        self._persistent = [p for p in net.parameters() if p.numel() <= PERSISTENT]
        self._outer = nn.Module()  # Lightning's module around it, with which a pass begins
        self._own[self._outer] = []
        self._whole: dict[nn.Parameter, Tensor] = {}
        self._coming: dict[nn.Parameter, Message] = {}
        self._users: defaultdict[nn.Parameter, set[nn.Module]] = defaultdict(set)
        self._backward: dict[nn.Module, None] = {}
        self._recorded: list[nn.Module] = []
        self._is_known = False

    def begin(self) -> None:
        """A forward pass begins."""
        for parameter, message in list(self._coming.items()):
            self._whole.update(message.open())
            self._let_go([parameter])
        self._coming.clear()
        self._is_known = bool(self._recorded)
        self._step = self._n_gathered = 0
        self._queue = deque(
            (parameter, step) for step, module in enumerate(self._recorded) for parameter in self._own[module]
        )
        self._fetched_for: dict[nn.Parameter, int] = {}
        self.enter(self._outer)

    def enter(self, module: nn.Module, is_backward: bool = False) -> None:
        """A module runs: have its weights whole, and send for what comes behind it."""
        if is_backward:
            self._backward[module] = None
        if not self._is_known:
            self._recorded.append(module)
        wanted = self._own[module]
        self._gather(wanted)
        self._open(wanted)
        for parameter in wanted:
            self._users[parameter].add(module)
        if self._is_known:
            self._gather(self._ahead({p for p in wanted if self._fetched_for.get(p, -1) < self._step}))
        self._step += 1

    def leave(self, module: nn.Module, is_backward: bool = False) -> None:
        """A module has run: let go of what stays no longer."""
        if is_backward:
            self._backward.pop(module, None)
        own = self._own[module]
        for parameter in own:
            self._users[parameter].discard(module)
        self._let_go(self._spent(own) if self._is_known else own)

    def close(self) -> None:
        """A backward pass is over: leave modules that are still running, since their inputs have no gradients."""
        for module in self._backward:
            for parameter in self._own[module]:
                self._users[parameter].discard(module)
            self._let_go(p for p in self._own[module] if p.numel() > PERSISTENT)
        self._backward.clear()

    def let_all_go(self) -> None:
        """An update begins, which is of shares."""
        self._whole.clear()
        self._coming.clear()

    def settle(self) -> None:
        """The weights were updated: gather the small ones, which stay."""
        self._gather(self._persistent)
        self._open(self._persistent)

    def _open(self, parameters: Iterable[nn.Parameter]) -> None:
        """Look at what has been sent for."""
        for parameter in parameters:
            if parameter in self._coming:
                self._whole.update(self._coming.pop(parameter).open())

    def _gather(self, parameters: Iterable[nn.Parameter]) -> None:
        """Send for those that are neither whole nor on their way, a message for each dtype."""
        messages: defaultdict[torch.dtype, list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            if parameter not in self._whole and parameter not in self._coming:
                messages[parameter.dtype].append(parameter)
        for alike in messages.values():
            self._n_gathered += sum(parameter.numel() for parameter in alike)
            self._coming.update(dict.fromkeys(alike, Message(alike, self._layout, self._ledger)))

    def _ahead(self, wanted: set[nn.Parameter]) -> list[nn.Parameter]:
        """What to send for of that which comes behind a module that wants these."""
        for _ in range(len(wanted)):
            self._next()
        room = min(LIVE - self._n_gathered, PREFETCHED)
        ahead: dict[nn.Parameter, None] = {}
        total = 0
        while self._queue and total < room:
            parameter = self._next()
            if not (parameter in self._whole or parameter in self._coming or parameter in ahead):
                ahead[parameter] = None
                total += parameter.numel()
        return list(ahead)

    def _next(self) -> nn.Parameter:
        parameter, step = self._queue.popleft()
        self._fetched_for[parameter] = max(self._fetched_for.get(parameter, -1), step)
        return parameter

    def _spent(self, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """Those of a module that is over that aren't needed again soon, and weren't counted on by what is ahead."""
        spent = {
            p: None
            for p in parameters
            if p.numel() > PERSISTENT and self._fetched_for.get(p, -1) <= self._step
        }
        passed = 0
        for module in islice(self._recorded, self._step, None):
            if passed >= REUSED or not spent:
                break
            for parameter in self._own[module]:
                spent.pop(parameter, None)
                passed += parameter.numel()
        return list(spent)

    def _let_go(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter in self._whole and not self._users[parameter]:
                del self._whole[parameter]
                self._n_gathered -= parameter.numel()


def follow(net: Transformer, gathering: Gathering) -> None:
    """Let modules gather their weights as they run."""
    # That of the token ids, of which no gradient is wanted.
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    for module in net.modules():
        module.register_forward_pre_hook(lambda module, args: gathering.enter(module))
        module.register_forward_hook(lambda module, args, result: gathering.leave(module))
        module.register_full_backward_pre_hook(lambda module, results: gathering.enter(module, True))
        module.register_full_backward_hook(partial(_leave_backward, gathering))


def _leave_backward(gathering: Gathering, module: nn.Module, inputs: Any, results: Any) -> None:
    # Where no input wants a gradient, torch calls this before the module's own gradients, and DeepSpeed not at all.
    if any(gradient is not None for gradient in inputs):
        gathering.leave(module, True)


def gathered(net: Transformer, layout: Layout, deadline: float = math.inf) -> tuple[dict[str, Memory], float]:
    """What is gathered of a model that no step is traced of, at each moment, and the bytes sent for it in a pass.

    Modules run as they are ordered; what is computed again in the backward pass is there already.

    Raises:
        TimeoutError: the monotonic clock went past the deadline.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), Ledger(deadline=deadline) as ledger:
        gathering = Gathering(net, layout, ledger)
        indices: dict[nn.Module, int] = {block: index for index, block in enumerate(blocks(net))}
        for _ in range(3):
            ledger.forget_peaks()
            ledger.forget_sent()
            ledger.at("buffers", "embedding")
            gathering.begin()
            _run(net, gathering, ledger, indices, is_backward=False)
            ledger.at("buffers", "loss")
            ledger.at("buffers", "backward")
            _run(net, gathering, ledger, indices, is_backward=True)
            gathering.close()
            gathering.let_all_go()
            gathering.settle()
            ledger.at("buffers", "update")
            ledger.at("buffers", "batch")
    return ledger.peaks, ledger.sent["data"]


def _run(
    module: nn.Module,
    gathering: Gathering,
    ledger: Ledger,
    indices: Mapping[nn.Module, int],
    is_backward: bool,
) -> None:
    """Run a module and those within, one after the other."""
    index = indices.get(module)
    if index is not None:
        ledger.at("buffers", f"{'backward' if is_backward else 'forward'} {index}")
    is_called = not isinstance(module, nn.ModuleList | nn.ModuleDict)
    if is_called:
        gathering.enter(module, is_backward)
    children = list(module.children())
    for child in reversed(children) if is_backward else children:
        _run(child, gathering, ledger, indices, is_backward)
    if is_called:
        gathering.leave(module, is_backward)
    if index == len(indices) - 1 and not is_backward:
        ledger.at("buffers", "head")
