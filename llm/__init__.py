"""Build your own language model, config first: from raw text to a model that writes."""

__version__ = "0.1.0"
