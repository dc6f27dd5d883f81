"""How long training takes."""

# The share of the matrix products' peak that training of a fitting size reaches; see benchmarks/ and, for
# accelerators, llm-foundry's and llm.c's figures of 40 to 50% at these sizes.
TYPICAL_MFU = {"cpu": 0.4, "cuda": 0.4, "mps": 0.3}


def training_seconds(flops: float, peak_flops: float, world_size: int, accelerator: str) -> float:
    """Seconds for `flops` on `world_size` devices of `peak_flops` FLOP/s each, at the typical MFU."""
    return flops / (peak_flops * world_size * TYPICAL_MFU.get(accelerator, min(TYPICAL_MFU.values())))
