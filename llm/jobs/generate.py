"""`llm generate`: write text with a run, streamed as it comes."""

from typing import Any

from llm import build
from llm.build import Config
from llm.generation import Sampling, answer, complete, pack, stream_text
from llm.tokenizer import load_tokenizer
from llm.train.metrics import precision_dtype
from llm.train.run import Run

SAMPLING_KEYS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def sampling(config: Config) -> Sampling:
    """How tokens are drawn, by the keys of a verb that writes."""
    return Sampling(**{key: config[key] for key in SAMPLING_KEYS})


def run(config: Config, choices: dict[str, Any]) -> int:
    """Write `num_samples` texts that begin with the prompt; returns the exit code."""
    source = Run.open(config["run"])
    net, _ = build.trained_model(source, config["checkpoint"])
    net = pack(net.to(precision_dtype(config["precision"])), rows=config["num_samples"])
    tokenizer = load_tokenizer(source.tokenizer)
    prompt = config["prompt"]
    if net.config.architecture != "decoder" or net.config.labels:
        print(answer(net, tokenizer, prompt, config["max_new_tokens"]))
        return 0
    how = {
        "sampling": sampling(config),
        "max_new_tokens": config["max_new_tokens"],
        "seed": config["seed"],
    }
    if config["num_samples"] == 1:
        print(prompt, end="", flush=True)
        for piece in stream_text(net, tokenizer, prompt, **how):
            print(piece, end="", flush=True)
        print()
        return 0
    for number, text in enumerate(
        complete(net, tokenizer, prompt, num_samples=config["num_samples"], **how), 1
    ):
        print(f"--- sample {number}\n{prompt}{text}")
    return 0
