"""Hugging Face's inference shapes: what its clients send, and what they read of an answer."""
