"""The strategies that split a model over processes: Lightning's, with the layout that it leaves to its user."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from lightning.pytorch.plugins import Precision
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import MixedPrecisionPolicy

from llm.train.module import LanguageModule
from llm.train.parallel import shard

HALF = {"bf16": torch.bfloat16, "bf16-mixed": torch.bfloat16}


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
        half = HALF.get(plugin.precision) if plugin is not None else None
        if half is not None:
            # Weights are gathered and used in half precision; gradients are added up in float32.
            self.policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
            plugin = Precision()
        self._precision_plugin = plugin

    def setup_environment(self) -> None:
        """Connect the processes; unlike Lightning's `auto`, all of them share the data."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """What surrounds `configure_model`: the model is split, without storage yet."""
        module = cast(LanguageModule, self.lightning_module)
        module.compile_blocks()
        shard(module.model, self.device_mesh["data_parallel"], self.policy)
        yield
