"""How a strategy lays a model and its training out over processes, tried on processes that do not exist."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from llm.errors import ConfigError
from llm.model import Transformer
from llm.train.parallel import shard
from llm.train.strategies import HALF, policy_for
from llm.train.tensor_parallel import split_tensors

ZERO = {"deepspeed_zero1": 1, "deepspeed_zero2": 2, "deepspeed_zero3": 3}
STRATEGIES = ("single", "ddp", "fsdp", "fsdp_tp", *ZERO)


class Meshes(NamedTuple):
    """Which processes share a model, and which of those a matrix product."""

    data: DeviceMesh
    tensor: DeviceMesh


@dataclass(frozen=True)
class Layout:
    """A strategy, how many processes it has, and how many of them share each matrix product.

    Args:
        strategy: its name as in `strategy=`.
        world_size: processes in all.
        tensor_parallel_size: processes that share each matrix product.
        offload: whether DeepSpeed keeps what it can in the host's memory.
        accelerator: what kind of device they are for.

    Raises:
        ConfigError: nothing is known of the strategy.
    """

    strategy: str
    world_size: int = 1
    tensor_parallel_size: int = 1
    offload: bool = False
    accelerator: str = "cpu"

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigError(
                f"strategy={self.strategy}: a plan can't be made of it; those that can: {', '.join(STRATEGIES)}."
            )

    @property
    def readers(self) -> int:
        """How many different micro-batches there are at a time."""
        return self.world_size // self.tensor_parallel_size

    @property
    def others(self) -> float:
        """The share of what all processes hold that a process gets from the others, or sends them, by a ring."""
        return (self.world_size - 1) / self.world_size

    @property
    def zero_stage(self) -> int:
        """What DeepSpeed splits: nothing (0), the optimizer's state (1), gradients too (2), weights too (3)."""
        return ZERO.get(self.strategy, 0)

    @property
    def has_whole_weights(self) -> bool:
        """Whether each process holds all weights."""
        return not self.is_split and self.zero_stage < 3

    @property
    def is_split(self) -> bool:
        """Whether FSDP2 leaves each process a share of the weights alone."""
        return self.strategy in ("fsdp", "fsdp_tp")

    @contextmanager
    def processes(self) -> Iterator[Meshes | None]:
        """Within, this process is the first of `world_size` of which the others do nothing; their meshes, if any."""
        if not self.is_split:
            yield None
            return
        from torch.testing._internal.distributed.fake_pg import FakeStore

        # Nothing here changes a block's result in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=self.world_size)
        try:
            sizes = (self.readers, self.tensor_parallel_size)
            mesh = init_device_mesh("cpu", sizes, mesh_dim_names=("data", "tensor"))
            yield Meshes(mesh["data"], mesh["tensor"])
        finally:
            dist.destroy_process_group()

    def split(self, net: Transformer, meshes: Meshes | None, precision: str) -> None:
        """Lay a model out, in place, as the strategy would."""
        if meshes is None:
            return
        if self.strategy == "fsdp_tp":
            split_tensors(net, meshes.tensor)
        shard(net, meshes.data, policy_for(precision))

    def autocast(self, precision: str) -> Any:
        """What a forward pass runs in: FSDP2 gathers in half precision, and DeepSpeed's weights are in it, or not at all."""
        half = None if self.is_split or self.zero_stage else HALF.get(precision)
        return nullcontext() if half is None else torch.autocast("cpu", half)
