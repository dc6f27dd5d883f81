"""The formats that a model is exported in: what a writer of one is given, what it gives back, and the table of them."""

from collections.abc import Callable
from pathlib import Path

from llm.hub.about import About
from llm.hub.huggingface import write as write_huggingface
from llm.model import Transformer
from llm.tokenizer import Tokenizer

# Writes the files of one format into an empty folder, and returns the lines to type next. The model is in evaluation
# mode, on the CPU, in the dtype asked for. What the format cannot hold is a ConfigError before the first file is
# written; whatever is raised later, the caller clears the folder away. It need not sync what it writes.
Writer = Callable[[Path, Transformer, Tokenizer, About], list[str]]

FORMATS: dict[str, Writer] = {"hf": write_huggingface}
