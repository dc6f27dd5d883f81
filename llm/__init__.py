"""Build your own language model, config first: from raw text to a model that writes."""

from llm.light_imports import import_torchmetrics_lightly

__version__ = "0.1.0"

import_torchmetrics_lightly()
