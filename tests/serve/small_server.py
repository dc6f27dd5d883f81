"""A server in this process, on a real port, with small models whose weights are random."""

import contextlib
import socket
import threading
import time

from llm.model import ModelConfig, Transformer, init_weights
from llm.serve import Guarding, create_app, server_of
from llm.tokenizer import ByteSpec
from tests.small_models import shaken

TOKENIZER = ByteSpec().build()
SHAPE = {"d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_ff": 48, "context_length": 256}
STARTED = 20.0  # seconds


def small(seed=0, **changes):
    """A model with weights far from their small initial values, so that its tokens vary."""
    model = Transformer(ModelConfig(**{**SHAPE, "vocab_size": TOKENIZER.vocab_size, **changes})).eval()
    init_weights(model, seed=seed)
    return shaken(model, 0.2, seed)


@contextlib.contextmanager
def serving(*models, guarding=None, host="127.0.0.1", frame_ancestors=()):
    """The address of a server of `models`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, 0), family=family)
    server = server_of(create_app(models, guarding or Guarding.of(host, None), frame_ancestors))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}"
    try:
        wait_until(lambda: server.started)
        yield address
    finally:
        server.should_exit = True
        thread.join(STARTED)
        listening.close()
        assert not thread.is_alive()


def wait_until(true, seconds=STARTED):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it didn't happen in time"
        time.sleep(0.01)
