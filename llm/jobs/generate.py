"""`llm generate`: write text with a run, streamed as it comes."""

from typing import Any

from llm import build
from llm.build import Config
from llm.errors import ConfigError
from llm.generation import Sampling, answer, complete, continues, stream_text
from llm.jobs import generate_many
from llm.tokenizer import load_tokenizer
from llm.train.run import Run

SAMPLING_KEYS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def sampling(config: Config) -> Sampling:
    """How tokens are drawn, by the keys of a verb that writes."""
    return Sampling(**{key: config[key] for key in SAMPLING_KEYS})


def run(config: Config, choices: dict[str, Any]) -> int:
    """Write `num_samples` texts that begin with the prompt; returns the exit code."""
    source = Run.open(config["run"])
    _check_files(config)
    many = bool(config["data"]["paths"])
    net, folder = build.trained_model(source, config["checkpoint"])
    rows = config["max_batch_size"] if many else config["num_samples"]
    net = build.for_inference(net, config["precision"], rows)
    tokenizer = load_tokenizer(source.tokenizer)
    if many:
        return generate_many.run(config, net, tokenizer, sampling(config), folder)
    prompt = config["prompt"]
    if not continues(net, tokenizer):
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


def _check_files(config: Config) -> None:
    """Prompts from files need a file to write to, and leave `prompt` out."""
    paths, out = config["data"]["paths"], config["out"]
    if bool(paths) != bool(out):
        raise ConfigError(
            "data.paths and out go together: the prompts' files, and the file that the texts go to."
        )
    if paths and config["prompt"]:
        raise ConfigError("prompt: the prompts come from data.paths; leave it out.")
