"""Trained models behind the APIs that programs already use, and a page to chat with them."""

from llm.serve.app import create_app
from llm.serve.guard import Guarding
from llm.serve.served import Served

__all__ = ["Guarding", "Served", "create_app"]
