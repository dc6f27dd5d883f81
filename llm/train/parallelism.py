"""What a strategy does to a model and its training: the one place that knows strategies by their classes."""

from dataclasses import dataclass, replace
from typing import Any

# The key of a strategy whose processes share matrix products.
TENSOR_PARALLEL = "tensor_parallel_size"


@dataclass(frozen=True)
class Parallelism:
    """A strategy, with what is set of it; all else of ours asks it, not its name.

    Of somebody's own class nothing is known but its settings.

    Args:
        name: as in `strategy=`; of somebody's own class its path.
        target: the path of the class.
        is_alone: whether it is for one process.
        averages: whether each process has a copy of the model, and gradients are averaged in buckets.
        is_sharded: whether FSDP2 leaves each process a share of the weights alone.
        zero_stage: what DeepSpeed splits: nothing (0), the optimizer's state (1), gradients too (2), weights too (3).
        shares_products: whether matrices are cut too, and processes share each product.
        tensor_parallel_size: how many processes share each product.
        offload: whether DeepSpeed keeps what it can in the host's memory.
    """

    name: str
    target: str = ""
    is_alone: bool = False
    averages: bool = False
    is_sharded: bool = False
    zero_stage: int = 0
    shares_products: bool = False
    tensor_parallel_size: int = 1
    offload: bool = False

    @property
    def has_whole_weights(self) -> bool:
        """Whether each process holds all weights."""
        return not self.is_sharded and self.zero_stage < 3

    @property
    def gathers_in_hooks(self) -> bool:
        """Whether weights come and go in hooks on modules, which can be neither compiled nor run again in part."""
        return self.zero_stage == 3

    @property
    def gives_whole_matrices(self) -> bool:
        """Whether an optimizer can have a matrix's gradient whole, as it is or put together from shares."""
        return self.is_alone or self.averages or (self.is_sharded and not self.shares_products)


# Those that need no extra first: a plan offers them in this order.
STRATEGIES = {
    one.name: one
    for one in (
        Parallelism("single", is_alone=True),
        Parallelism("ddp", "lightning.pytorch.strategies.DDPStrategy", averages=True),
        Parallelism("fsdp", "llm.train.strategies.FSDPStrategy", is_sharded=True),
        Parallelism(
            "fsdp_tp", "llm.train.strategies.TensorParallelStrategy", is_sharded=True, shares_products=True
        ),
        *(
            Parallelism(f"deepspeed_zero{stage}", "llm.train.strategies.ZeroStrategy", zero_stage=stage)
            for stage in (1, 2, 3)
        ),
    )
}


def parallelism_of(node: Any) -> Parallelism:
    """What the config's `trainer.strategy` does, whichever choice of `strategy=` has written it."""
    if not isinstance(node, dict):
        return STRATEGIES["single"] if node in (None, "auto") else Parallelism(str(node))
    target, stage = node["_target_"], node.get("stage", 0)
    own = Parallelism(target, target, shares_products=TENSOR_PARALLEL in node)
    known = (one for one in STRATEGIES.values() if (one.target, one.zero_stage) == (target, stage))
    return replace(
        next(known, own),
        tensor_parallel_size=int(node.get(TENSOR_PARALLEL, 1)),
        offload=node.get("offload", False),
    )
