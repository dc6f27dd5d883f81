"""What each command does, from a checked config to an exit code; the command line itself is `llm.cli`'s."""
