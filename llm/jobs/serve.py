"""`llm serve`: runs and Hugging Face folders behind one HTTP server, until a signal ends it."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm import build
from llm.build import Config
from llm.config import Composed
from llm.errors import ConfigError, missing_package
from llm.generation import is_decoder_lm, is_generative, rows_within
from llm.train.precision import compute_dtype

KEY_VARIABLE = "LLM_API_KEY"
DRAIN_SECONDS = 30
# After so long the thread that answers clients lets the one of the model go on, which asks after each of a step's short
# products; Python's own 5 ms cost 16 streams 7% of their tokens a second, and let some wait twice as long.
SWITCH_SECONDS = 0.0003


def run(composed: Composed) -> int:
    """Serve until SIGTERM or Ctrl-C, then finish what is under way; returns the exit code."""
    config = composed.config
    try:
        from llm.serve import Guarding, check_frame_ancestors, create_app, server_of
    except ModuleNotFoundError as error:
        raise missing_package("llm serve", str(error.name), "serve") from None
    api_key = config["api_key"] or os.environ.get(KEY_VARIABLE) or None
    guarding = Guarding.of(config["host"], api_key, config["allowed_hosts"])
    check_frame_ancestors(config["frame_ancestors"])
    with _bound(config["host"], config["port"]) as bound:
        models = _models(config)
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
        server = server_of(create_app(models, guarding, config["frame_ancestors"]), DRAIN_SECONDS)
        _listen(bound)
        _announce(models, bound)
        # uvicorn drains, then sends itself the signal again.
        signal.signal(signal.SIGTERM, _stop)
        signal.signal(signal.SIGINT, _stop)
        sys.setswitchinterval(SWITCH_SECONDS)
        server.run(sockets=[bound])
    return 0


def _stop(*_: object) -> None:
    raise SystemExit(0)


def _models(config: Config) -> list[Any]:
    given = config["run"]
    folders = [given] if isinstance(given, str) else given
    names = [Path(folder).expanduser().resolve().name for folder in folders]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"run: two models would be called {sorted(twice)[0]}; rename one of the folders.")
    draft = _draft(config)
    usables = build.usable_models(folders, config["checkpoint"])
    writing = {id(usable.net) for usable in usables if is_generative(usable.net)}
    gib = config["cache_gib"] / max(1, len(writing))
    found: list[Any] = []
    first: dict[int, Any] = {}
    for name, usable in zip(names, usables, strict=True):
        found.append(_served(name, usable, first.get(id(usable.net)), draft, gib, config))
        first.setdefault(id(usable.net), found[-1])
    return found


def _served(
    name: str, usable: build.Usable, beside: Any, draft: build.Usable | None, gib: float, config: Config
) -> Any:
    """What is served under a name, `beside` another one whose net it shares, with a cache of at most `gib`."""
    from llm.serve import Served

    net, tokenizer = usable.net, usable.tokenizer
    if beside is not None:
        return Served(name, usable.make(net), tokenizer, beside=beside)
    net = net.to(compute_dtype(config["precision"]))  # the cache is of the same type
    guesses = draft.net if draft is not None and is_decoder_lm(net) else None
    rows = config["max_batch_size"]
    if is_generative(net):
        rows = rows_within(net, rows, gib, guesses)
    net = build.for_inference(net, config["precision"], rows)
    if guesses is not None and draft is not None and draft.tokenizer.hash != tokenizer.hash:
        raise ConfigError(f"draft={config['draft']}: its tokenizer is another than that of {name}.")
    return Served(
        name, usable.make(net), tokenizer, rows, config["max_waiting"], config["speculate"], guesses
    )


def _draft(config: Config) -> build.Usable | None:
    """The model whose guesses are checked, laid out for one text.

    Raises:
        ConfigError: how many tokens it guesses isn't said.
    """
    if config["draft"] is None:
        return None
    if not config["speculate"]:
        raise ConfigError("draft: say how many tokens it guesses each time, such as speculate=4.")
    net, tokenizer = build.usable_model(config["draft"], None)
    return build.Usable(build.for_inference(net, config["precision"], 1), tokenizer)


def _bound(host: str, port: int) -> socket.socket:
    """A socket that has the port, and takes no connection: until the models are loaded, probes are to fail at once.

    Raises:
        ConfigError: the port is taken, or the host is none of this machine's.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host.strip("[]"), port))
    except OSError as error:
        bound.close()
        raise _taken(host, port, error) from error
    return bound


def _listen(bound: socket.socket) -> None:
    """Take connections; a ConfigError where another program has begun to, on the same port, in the meantime."""
    try:
        bound.listen()
    except OSError as error:
        host, port = bound.getsockname()[:2]
        raise _taken(host, port, error) from error


def _taken(host: str, port: int, error: OSError) -> ConfigError:
    return ConfigError(f"host={host} port={port}: {error.strerror}. Choose another port=.")


def _announce(models: Sequence[Any], listening: socket.socket) -> None:
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(f"Serving {', '.join(served.name for served in models)} at {address}", flush=True)
    for served in models:
        if served.is_decoder_lm and not served.chats:
            print(
                f"warning: {served.name} was not trained to chat; chats are written as plain lines.",
                flush=True,
            )
    print(f"Point any OpenAI client to base_url={address}/v1, or open {address} in a browser.", flush=True)
