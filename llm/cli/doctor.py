"""`llm doctor`: look at this machine and installation, and say what to do."""

ABOUT = """Look at this machine and installation: Python and packages, cores, accelerators, bfloat16, torch.compile,
memory, disk, optional packages, W&B's key, each with what to do where something is amiss. Ends with exit code 1
where something that is needed is missing."""

EXAMPLES = {
    "compile=false": "without the seconds that torch.compile takes",
    "runs_dir=/data/runs": "whether runs have room there",
    "runs_dir=/data/runs shards_dir=/data/shards": "and shards",
}
