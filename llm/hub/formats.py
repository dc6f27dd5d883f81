"""The formats that a model is exported in, by the names that `llm export format=` takes."""

from llm.hub.export import Writer
from llm.hub.huggingface import write as write_huggingface

FORMATS: dict[str, Writer] = {
    "hf": write_huggingface,
}
