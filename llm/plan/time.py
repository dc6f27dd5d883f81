"""How long training takes."""

# The share of the matrix products' peak that training reaches. On a CPU the default model had 0.28 to 0.49, by what
# else the machine did; on accelerators, llm-foundry and llm.c publish 40 to 50% for models of fitting size.
TYPICAL_MFU = {"cpu": 0.4, "cuda": 0.4, "mps": 0.3}


def training_seconds(flops: float, peak_flops: float, world_size: int, accelerator: str) -> float:
    """Seconds for `flops` on `world_size` devices of `peak_flops` FLOP/s each, at the typical MFU."""
    return flops / (peak_flops * world_size * TYPICAL_MFU.get(accelerator, min(TYPICAL_MFU.values())))
