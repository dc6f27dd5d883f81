"""A process of its own that tries whether a grammar can be made within little time and memory; exit code 0 says yes.

Time is CPU time, so that it doesn't matter what else the machine does; SIGPROF ends what takes longer.

llguidance counts what it does in most places and stops in time; intersections of patterns are none of them, and a schema of
a few kilobytes can ask for gigabytes. This file imports nothing of ours, so that it starts at once.
"""

import resource
import signal
import sys

from llguidance import LLMatcher, LLParserLimits

# In llguidance's own units; its defaults let some schemas take seconds.
LIMITS = LLParserLimits(
    initial_lexer_fuel=500_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_grammar_size=100_000,
    max_lexer_states=50_000,
)
MOST_MEMORY = 2**30
MOST_SECONDS = 0.6


def main() -> int:
    """Try the grammar that comes on standard input, and say what is wrong with it."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    wrong = LLMatcher.validate_grammar(sys.stdin.read(), limits=LIMITS)
    print(wrong)
    return 0 if not wrong or wrong.startswith("WARNING") else 1


if __name__ == "__main__":
    raise SystemExit(main())
