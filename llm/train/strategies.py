"""The strategies that split a model over processes: Lightning's, with the layout that it leaves to its user."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal, cast

import torch
from lightning.pytorch.plugins import Precision
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import Optimizer

from llm.bounds import Count
from llm.errors import missing_package
from llm.model import Transformer
from llm.train.module import LanguageModule
from llm.train.precision import fsdp_policy, is_mixed
from llm.train.sharding import shard
from llm.train.tensor_parallel import split_tensors
from llm.train.zero import ZeroState, frozen_share


def lay_out(
    net: Transformer, precision: str, data_mesh: DeviceMesh, tensor_mesh: DeviceMesh | None = None
) -> None:
    """Split a model, in place: its matrices within `tensor_mesh`, where there is one, then all of it over `data_mesh`.

    The plan lays a model out by it too.

    Args:
        net: the model, without storage.
        precision: Lightning's name of it.
        data_mesh: processes that read different data.
        tensor_mesh: processes that share each matrix product.
    """
    if tensor_mesh is not None:
        split_tensors(net, tensor_mesh)
    shard(net, data_mesh, fsdp_policy(precision))


class FSDPStrategy(ModelParallelStrategy):
    """FSDP2: weights, gradients and optimizer state split over all processes, on any accelerator.

    It lays the module's model out before `configure_model` gives that storage and values.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1)
        self.sharded_precision = "32-true"

    @property
    def precision_plugin(self) -> Precision:
        """None of Lightning's for bf16-mixed: autocast would gather float32."""
        return super().precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, plugin: Precision | None) -> None:
        if plugin is not None and is_mixed(plugin.precision):
            self.sharded_precision = plugin.precision
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
        lay_out(module.model, self.sharded_precision, self.device_mesh["data_parallel"], self.tensor_mesh)
        yield

    @property
    def tensor_mesh(self) -> DeviceMesh | None:
        """The processes that share each matrix product with this one; None where each has all of them."""
        return None


class TensorParallelStrategy(FSDPStrategy):
    """Tensor parallelism within each `tensor_parallel_size` processes, FSDP2 over the groups of them.

    Args:
        tensor_parallel_size: how many processes share each matrix product.
    """

    def __init__(self, tensor_parallel_size: Count = 2) -> None:
        super().__init__()
        self._tensor_parallel_size = tensor_parallel_size

    @property
    def tensor_mesh(self) -> DeviceMesh:
        """The processes of this one's group."""
        return self.device_mesh["tensor_parallel"]


def check_deepspeed() -> None:
    """Refuse DeepSpeed's strategies where it is not installed.

    Raises:
        ConfigError: it isn't.
    """
    if find_spec("deepspeed") is None:
        instead = ", with DS_BUILD_OPS=0 before it, or use strategy=fsdp, which needs nothing more"
        raise missing_package("strategy=deepspeed_zero1 (or 2, or 3)", "deepspeed", "deepspeed", instead)


class ZeroStrategy(DeepSpeedStrategy):
    """DeepSpeed's ZeRO (arXiv 1910.02054) on any accelerator; Lightning's own refuses all but CUDA.

    Args:
        stage: what is split over all processes: the optimizer's state (1), gradients too (2), weights too (3).
        offload: whether the optimizer's state, and under stage 3 the weights, lie in the host's memory.
    """

    def __init__(self, stage: Literal[1, 2, 3], offload: bool = False) -> None:
        check_deepspeed()
        super().__init__(
            stage=stage,
            offload_optimizer=offload,
            offload_parameters=offload and stage == 3,
            logging_batch_size_per_gpu=1,
        )
        # Our AdamW works on the host as well, and DeepSpeed's would have to be compiled there.
        self.config |= {"zero_force_ds_cpu_optimizer": False, "steps_per_print": 10**9}  # type: ignore[operator]

    @property
    def module(self) -> LanguageModule:
        """What is trained."""
        return cast(LanguageModule, self.lightning_module)

    @property
    def state(self) -> ZeroState:
        """Weights and moments by name."""
        return ZeroState(self.module.model, self.optimizers[0], self._frozen)

    @property
    def root_device(self) -> torch.device:
        """This process's device; DeepSpeed asks for its number on a CPU too."""
        device = super().root_device
        return torch.device("cpu", self.local_rank) if device.type == "cpu" else device

    def setup_environment(self) -> None:
        """Connect the processes, past Lightning's check for CUDA."""
        if self.root_device.type == "cpu":
            # Where it sees a GPU, DeepSpeed would use it.
            os.environ["DS_ACCELERATOR"] = "cpu"
            import deepspeed.ops

            # It would compile an operation for inference that isn't used here, for a minute, and after a kill within that
            # minute wait forever for a lock.
            deepspeed.ops.__compatible_ops__ = {}
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """Make the process group, past Lightning's check of CUDA's device numbers."""
        if self.root_device.type != "cpu":
            return super().setup_distributed()
        self.set_world_ranks()
        return self._init_deepspeed_distributed()

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """What surrounds `configure_model`: under stage 3 the model is filled on the host, then split."""
        if self.zero_stage_3:
            import deepspeed

            self._init_config_if_needed()
            self.module.model.to_empty(device="cpu")
            self.module.initialise(self.module.model)
            deepspeed.zero.Init(module=self.module.model, config_dict_or_path=self.config)
        yield

    def about(self) -> dict[str, int]:
        """What the engine says of itself: its stage, and the bytes of float32 weights and moments in each process."""
        held = sum(p.nbytes + sum(s.nbytes for s in state.values()) for p, state in self.state.flat_states())
        return {
            "zero_stage": self.deepspeed_engine.zero_optimization_stage(),
            "optimizer_bytes_per_rank": held,
        }

    def _initialize_deepspeed_train(self, model: torch.nn.Module) -> None:
        is_rounded = is_mixed(self.precision_plugin.precision)
        self._frozen = (
            frozen_share(self.module.model, self.global_rank, self.world_size) if is_rounded else {}
        )
        super()._initialize_deepspeed_train(model)
        self.state.make_states()
        optimizer = cast(Any, self.optimizers[0])
        # The gradients' norm is known by then, and no weight has changed.
        optimizer.optimizer.register_step_pre_hook(lambda *_: self._finish_step(optimizer._global_grad_norm))

    def backward(self, closure_loss: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Lightning has divided the loss by the micro-batches of a step, which DeepSpeed would do once more."""
        return super().backward(closure_loss, *args, scale_wrt_gas=False, **kwargs)

    def optimizer_step(
        self, optimizer: Optimizer, closure: Callable[[], Any], model: Any = None, **kwargs: Any
    ) -> Any:
        """One micro-batch, and the update where it is the step's last."""
        engine = self.deepspeed_engine
        is_last = engine.is_gradient_accumulation_boundary()
        result = super().optimizer_step(optimizer, closure, model, **kwargs)
        if is_last:
            # DeepSpeed leaves out an update that isn't finite, without a word.
            self._finish_step(math.nan)
        return result

    def _finish_step(self, norm: Any) -> None:
        if self.module.has_pending_gradients:
            self.module.finish_step(self.optimizers[0], float(norm))
