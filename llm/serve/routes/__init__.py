"""The server's routes, one module for each API that they belong to."""
