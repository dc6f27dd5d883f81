"""The formats that a model is exported in, by the names that `llm export format=` takes."""

from llm.hub.export import Writer
from llm.hub.gguf.writer import write as write_gguf
from llm.hub.huggingface import write as write_huggingface
from llm.hub.onnx import write as write_onnx
from llm.hub.peft import write as write_peft

FORMATS: dict[str, Writer] = {
    "hf": write_huggingface,
    "gguf": write_gguf,
    "onnx": write_onnx,
    "peft": write_peft,
}
