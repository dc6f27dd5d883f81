"""A test's function in several processes at once, as torch.multiprocessing.spawn does it, but from the warm server."""

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

TIMEOUT = 120  # seconds


def spawn(python: str, function: Callable[..., None], arguments: Sequence[Any], n: int) -> None:
    """Call `function(rank, *arguments)` in `n` processes, and fail with their output where one fails."""
    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        # Read first, since the function is found by its module's name.
        pickle.dump(sys.path, file)
        pickle.dump((function, arguments), file)
        file.flush()
        processes = [
            subprocess.Popen(
                [python, __file__, file.name, str(rank)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(n)
        ]
        try:
            outputs = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
    assert [process.returncode for process in processes] == [0] * n, "\n".join(outputs)


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        sys.path[:0] = pickle.load(file)
        function, arguments = pickle.load(file)
    function(int(sys.argv[2]), *arguments)
