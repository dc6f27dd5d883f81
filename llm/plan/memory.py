"""How much memory training takes in one process, by what it is for."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

from llm.data.collate import Work
from llm.model import ModelConfig, Transformer

OptimizerFactory = Callable[[Iterable[tuple[str, nn.Parameter]]], Optimizer]

# In the backward pass of cross-entropy three float32 values stand for each logit: the log-softmax, its gradient,
# and the gradient of the logits.
LOGIT_BYTES = 12


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of an optimizer step, in one process."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All of it: what the program itself takes is not counted."""
        return sum(astuple(self))


def training_memory(
    shape: ModelConfig,
    optimizer: OptimizerFactory,
    micro_batch_size: int,
    precision: str,
    device: str,
    work: Work | None = None,
) -> Memory:
    """The memory of training `shape`, where every process holds the whole model (strategies single and ddp).

    With P parameters of w bytes (2 in bf16-true and 16-true, 8 in 64, otherwise 4), a micro-batch of b sequences of
    k scored tokens (as `work` says; by default the whole context), and v ids:

        weights      P w
        gradients    P w
        optimizer    what its state holds after a step: 8 P for AdamW in float32
        activations  what autograd keeps of the forward pass up to the head, the weights' copies in half precision
                     included; counted on tensors without storage
        logits       12 b k v

    torch.compile keeps fewer activations than is said here, and Muon's iterations take some more. Measured on small
    models, what was allocated was between 0.9 and 1.12 times this; a CPU's allocator keeps what it was given once,
    so that the process as a whole grew to as much as 1.35 times (tests/plan/test_memory.py).
    """
    with FakeTensorMode(), torch.device(device), default_dtype(parameter_dtype(precision)):
        net = Transformer(shape)
        work = work or whole_context(shape)
        tokens_bt, source_bs = (
            torch.zeros(micro_batch_size, round(length), dtype=torch.long)
            for length in (work.written, work.read)
        )
        activations = kept_bytes(net, tokens_bt, source_bs, autocast(precision, device))
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    return Memory(
        weights=weights,
        gradients=weights,
        optimizer=state_bytes(net, optimizer),
        activations=activations,
        logits=LOGIT_BYTES * micro_batch_size * round(work.scored) * shape.vocabulary,
    )


def parameter_dtype(precision: str) -> torch.dtype:
    """What Lightning's `precision` keeps weights in."""
    if precision.startswith("64"):
        return torch.float64
    half = {"bf16-true": torch.bfloat16, "16-true": torch.float16}
    return half.get(precision, torch.float32)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make floating-point tensors `dtype` where nothing else is said."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def autocast(precision: str, device: str) -> Any:
    """The context in which Lightning's `precision` runs a forward pass."""
    mixed = {
        "bf16": torch.bfloat16,
        "bf16-mixed": torch.bfloat16,
        "16": torch.float16,
        "16-mixed": torch.float16,
    }
    return torch.autocast(device, mixed[precision]) if precision in mixed else nullcontext()


def whole_context(shape: ModelConfig) -> Work:
    """What a sample takes that fills the context, and the source's where there is one."""
    length = float(shape.context_length)
    return Work(length, length, length, length if shape.architecture == "encoder_decoder" else 0.0)


def kept_bytes(net: Transformer, tokens_bt: Tensor, source_bs: Tensor, context: Any) -> int:
    """The bytes that autograd keeps for the backward pass up to the head, each storage once, parameters left out."""
    own = {p.untyped_storage()._cdata for p in net.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), context:
        # The result is held until all is counted: what it alone keeps alive would be freed and its place reused.
        memory = None if net.encoder is None else net.read(source_bs)
        hidden_btd = net.encode(tokens_bt, memory=memory)
        keep(hidden_btd)
    return sum(storage.nbytes() for place, storage in kept.items() if place not in own)


def state_bytes(net: nn.Module, optimizer: OptimizerFactory) -> int:
    """The bytes of an optimizer's state for the parameters of `net`, which may be without storage.

    A step is taken on parameters of the same names and of two values a side; what has a parameter's shape in the
    state is taken to have it for the full one too.
    """
    full = dict(net.named_parameters())
    small = {
        name: nn.Parameter(torch.zeros([min(size, 2) for size in p.shape], dtype=p.dtype, device="cpu"))
        for name, p in full.items()
    }
    for parameter in small.values():
        parameter.grad = torch.ones_like(parameter)
    stepped = optimizer(small.items())
    stepped.step()
    return sum(
        value.element_size() * (full[name].numel() if value.shape == parameter.shape else value.numel())
        for name, parameter in small.items()
        for value in stepped.state[parameter].values()
        if isinstance(value, Tensor)
    )
