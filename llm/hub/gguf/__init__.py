"""GGUF, the file of llama.cpp and Ollama: a decoder with its tokenizer, written and read."""
