"""`llm generate`: write text with a run, streamed as it comes."""

import sys
from collections.abc import Collection
from typing import Any

from llm import build
from llm.build import Config
from llm.config import Composed
from llm.errors import ConfigError
from llm.generation import Sampling, complete, continues_prompt, respond, responds_whole, stream_text
from llm.jobs.generate_many import generate_files
from llm.model import Transformer
from llm.tokenizer import Tokenizer, load_tokenizer
from llm.train.run import Run

SAMPLING_KEYS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
# What is nothing to a model that makes one thing of a text; the likeliest is what it takes.
OF_WRITING = (*SAMPLING_KEYS, "seed", "num_samples")


def sampling(config: Config) -> Sampling:
    """How tokens are drawn, by the keys of a verb that writes."""
    return Sampling(**{key: config[key] for key in SAMPLING_KEYS})


def run(composed: Composed) -> int:
    """Write `num_samples` texts for the prompt, or the one response that there is to it; returns the exit code.

    Of the keys that the user `typed` those are named, on stderr, that change nothing.
    """
    config, typed = composed.config, composed.typed
    source = Run.open(config["run"])
    _check_files(config)
    many = bool(config["data"]["paths"])
    net, folder = build.trained_model(source, config["checkpoint"])
    rows = config["max_batch_size"] if many else config["num_samples"]
    net = build.for_inference(net, config["precision"], rows)
    tokenizer = load_tokenizer(source.tokenizer)
    whole = responds_whole(net, config["prompt"])
    if whole:
        _name_idle(typed)
    if many:
        return generate_files(config, net, tokenizer, sampling(config), folder)
    if whole:
        print(respond(net, tokenizer, config["prompt"], config["max_new_tokens"]))
    else:
        _write(config, net, tokenizer)
    return 0


def _write(config: Config, net: Transformer, tokenizer: Tokenizer) -> None:
    """Print what goes on from the prompt, behind it, or the prompt's targets."""
    prompt = config["prompt"]
    shown = prompt if continues_prompt(net, tokenizer) else ""
    how: dict[str, Any] = {
        "sampling": sampling(config),
        "max_new_tokens": config["max_new_tokens"],
        "seed": config["seed"],
    }
    if config["num_samples"] == 1:
        print(shown, end="", flush=True)
        for piece in stream_text(net, tokenizer, prompt, **how):
            print(piece, end="", flush=True)
        print()
        return
    for number, text in enumerate(
        complete(net, tokenizer, prompt, num_samples=config["num_samples"], **how), 1
    ):
        print(f"--- sample {number}\n{shown}{text}")


def _name_idle(typed: Collection[str]) -> None:
    """Tell which keys change nothing of what is made of a text that is read whole."""
    if idle := [key for key in OF_WRITING if key in typed]:
        print(f"note: this text is read whole, and {', '.join(idle)} change nothing.", file=sys.stderr)


def _check_files(config: Config) -> None:
    """Prompts from files need a file to write to, and leave `prompt` out."""
    paths, out = config["data"]["paths"], config["out"]
    if bool(paths) != bool(out):
        raise ConfigError(
            "data.paths and out go together: the prompts' files, and the file that the texts go to."
        )
    if paths and config["prompt"]:
        raise ConfigError("prompt: the prompts come from data.paths; leave it out.")
