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
from llm.train.parallelism import STRATEGIES, Parallelism
from llm.train.precision import compute_dtype, is_mixed
from llm.train.strategies import lay_out


class Meshes(NamedTuple):
    """Which processes share a model, and which of those a matrix product."""

    data: DeviceMesh
    tensor: DeviceMesh


@dataclass(frozen=True)
class Layout:
    """A strategy and the processes that it has.

    Args:
        parallelism: what the strategy does to a model.
        world_size: processes in all.
        accelerator: what kind of device they are for.

    Raises:
        ConfigError: nothing is known of the strategy.
    """

    parallelism: Parallelism
    world_size: int = 1
    accelerator: str = "cpu"

    def __post_init__(self) -> None:
        if self.parallelism.name not in STRATEGIES:
            raise ConfigError(
                f"strategy={self.parallelism.name}: a plan can't be made of it; those that can: {', '.join(STRATEGIES)}."
            )

    @property
    def data_parallel_size(self) -> int:
        """How many different micro-batches there are at a time: processes that share matrix products read the same one."""
        return self.world_size // self.parallelism.tensor_parallel_size

    @property
    def ring_fraction(self) -> float:
        """(n - 1) / n for n processes: of a collective's bytes, what each sends round a ring, and what it gets."""
        return (self.world_size - 1) / self.world_size

    @property
    def uses_host(self) -> bool:
        """Whether what can lies in the memory of a host that isn't the device itself, as a CPU is."""
        return self.parallelism.offload and self.accelerator != "cpu"

    @contextmanager
    def processes(self) -> Iterator[Meshes | None]:
        """Within, this process is the first of `world_size` of which the others do nothing; their meshes, if any."""
        if not self.parallelism.is_sharded:
            yield None
            return
        from torch.testing._internal.distributed.fake_pg import FakeStore

        # Nothing here changes a block's result in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=self.world_size)
        try:
            sizes = (self.data_parallel_size, self.parallelism.tensor_parallel_size)
            mesh = init_device_mesh("cpu", sizes, mesh_dim_names=("data", "tensor"))
            yield Meshes(mesh["data"], mesh["tensor"])
        finally:
            dist.destroy_process_group()

    def split(self, net: Transformer, meshes: Meshes | None, precision: str) -> None:
        """Lay a model out, in place, as the strategy would."""
        if meshes is not None:
            lay_out(net, precision, meshes.data, meshes.tensor if self.parallelism.shares_products else None)

    def autocast(self, precision: str) -> Any:
        """What a forward pass runs in: FSDP2 gathers in half precision, and DeepSpeed's weights are in it, or not at all."""
        whole = not (self.parallelism.is_sharded or self.parallelism.zero_stage)
        if not (whole and is_mixed(precision)):
            return nullcontext()
        return torch.autocast("cpu", compute_dtype(precision))
