"""What Lightning's `precision`, such as bf16-mixed, says of dtypes: of matrix products, of weights, of FSDP2's messages."""

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy

DTYPES = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}
# Lightning takes the first for the second.
MIXED = ("bf16", "bf16-mixed")


def is_mixed(precision: str) -> bool:
    """Whether weights are kept in float32 and matrices multiplied in bfloat16."""
    return precision in MIXED


def compute_dtype(precision: str) -> torch.dtype:
    """What matrices are multiplied in."""
    return DTYPES.get(precision.split("-")[0], torch.float32)


def parameter_dtype(precision: str) -> torch.dtype:
    """What weights are kept in."""
    return compute_dtype(precision) if precision == "64" or precision.endswith("-true") else torch.float32


def fsdp_policy(precision: str) -> MixedPrecisionPolicy:
    """FSDP2's policy: where precision is mixed, weights are gathered and used in bfloat16, and gradients added up in float32."""
    if not is_mixed(precision):
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(param_dtype=compute_dtype(precision), reduce_dtype=torch.float32)
