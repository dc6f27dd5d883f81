"""Trained models behind the APIs that programs already use, and a page to chat with them."""

from llm.serve.app import create_app
from llm.serve.connections import server_of
from llm.serve.guard import Guarding
from llm.serve.page import check_frame_ancestors
from llm.serve.served import Served

__all__ = ["Guarding", "Served", "check_frame_ancestors", "create_app", "server_of"]
