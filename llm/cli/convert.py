"""`llm convert`: a checkpoint from shards to whole files, and back."""

ABOUT = """Write a run's checkpoint anew, weights and optimizer state in whole safetensors files or in shards. No more
than the largest tensor is held in memory."""

EXAMPLES = {
    "run=runs/demo out=whole": "one file of weights, as other programs read it",
    "run=runs/demo checkpoint=best out=whole": "that of the lowest validation loss",
    "run=runs/demo out=split to=sharded shards=8": "eight files of weights, for eight processes to read at once",
}
