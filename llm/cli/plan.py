"""`llm plan`: what a training command would take, on hardware that need not be here."""

ABOUT = """Say whether a training command fits, where the memory goes, what to change, how long it takes and what it
costs: from a step on tensors without storage, on any machine, in a minute or so. It takes all that llm train takes."""

EXAMPLES = {
    "model=gpt_small": "on this machine",
    "model=gpt3_175b strategy=fsdp trainer.devices=1024 hardware=h100 tokens=3e11": "a cluster, from a laptop",
    "model=llama_8b trainer.devices=8 hardware=a100_80 goal=fastest": "the best way to lay it out",
}
