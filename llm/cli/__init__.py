"""The command line: words to a checked config, help and completion. What a command does is in llm/jobs."""
