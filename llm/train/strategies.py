"""The strategies that split a model over processes: Lightning's, with the layout that it leaves to its user."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, cast

import torch
from annotated_types import Gt
from lightning.pytorch.plugins import Precision
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import MixedPrecisionPolicy

from llm.model import Transformer
from llm.train.module import LanguageModule
from llm.train.parallel import shard
from llm.train.tensor_parallel import split_tensors

HALF = {"bf16": torch.bfloat16, "bf16-mixed": torch.bfloat16}


def policy_for(precision: str) -> MixedPrecisionPolicy:
    """FSDP2's policy for Lightning's `precision`: in a mixed one, weights are gathered and used in half precision, and
    gradients added up in float32."""
    if precision not in HALF:
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(param_dtype=HALF[precision], reduce_dtype=torch.float32)


class FSDPStrategy(ModelParallelStrategy):
    """FSDP2: weights, gradients and optimizer state split over all processes, on any accelerator.

    It lays the module's model out before `configure_model` gives that storage and values.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1)
        self.policy = MixedPrecisionPolicy()

    @property
    def precision_plugin(self) -> Precision:
        """None of Lightning's for bf16-mixed: autocast would gather float32."""
        return super().precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, plugin: Precision | None) -> None:
        if plugin is not None and plugin.precision in HALF:
            self.policy = policy_for(plugin.precision)
            plugin = Precision()
        self._precision_plugin = plugin

    def setup_environment(self) -> None:
        """Connect the processes; Lightning's `auto` would count nodes, not processes."""
        self._data_parallel_size = self.num_nodes * self.num_processes // self._tensor_parallel_size  # type: ignore
        super().setup_environment()

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """What surrounds `configure_model`: the model is split, without storage yet."""
        module = cast(LanguageModule, self.lightning_module)
        module.compile_blocks()
        self.lay_out(module.model)
        yield

    def lay_out(self, net: Transformer) -> None:
        """Split a model, in place."""
        shard(net, self.device_mesh["data_parallel"], self.policy)


class TensorParallelStrategy(FSDPStrategy):
    """Tensor parallelism within each `tensor_parallel_size` processes, FSDP2 over the groups of them.

    Args:
        tensor_parallel_size: how many processes share each matrix product.
    """

    def __init__(self, tensor_parallel_size: Annotated[int, Gt(0)] = 2) -> None:
        super().__init__()
        self._tensor_parallel_size = tensor_parallel_size

    def lay_out(self, net: Transformer) -> None:
        """Split a model's matrices within groups, then all of it over the groups."""
        split_tensors(net, self.device_mesh["tensor_parallel"])
        super().lay_out(net)
