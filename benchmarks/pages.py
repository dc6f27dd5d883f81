"""How large the pages are and how long a browser takes to show them: a run's report, a comparison, a sweep.

    python benchmarks/pages.py [--screenshots FOLDER]

Trains ten small models as a sweep of two keys, opens its pages in headless Chromium, light and dark, on a wide and on a
narrow screen, and writes benchmarks/pages.md. Chromium is spoken to through a pipe, so that no port is open.
"""

import argparse
import base64
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from timing import ROOT, machine, table

PAGE = Path(__file__).with_suffix(".md")
CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
]
WORDS = [
    "data=text",
    "tokenizer=byte",
    "model.d_model=32",
    "model.n_layers=2",
    "model.n_heads=2",
    "model.n_kv_heads=1",
    "model.head_dim=16",
    "model.d_ff=64",
    "model.context_length=32",
    "data.batch_size=8",
    "data.micro_batch_size=8",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_steps=120",
    "trainer.val_check_interval=20",
    "trainer.limit_val_batches=2",
    "trainer.log_every_n_steps=2",
    "samples.every_n_steps=40",
    "samples.max_new_tokens=48",
]
SWEPT = ["optimizer.lr=1e-4,3e-4,1e-3,3e-3,1e-2", "model.norm=rms,layer"]
SCREENS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
TIMES = """JSON.stringify((([one]) => ({
    ready: one.domContentLoadedEventEnd, load: one.loadEventEnd,
    over: document.documentElement.scrollWidth - document.documentElement.clientWidth
}))(performance.getEntriesByType("navigation")))"""


class Browser:
    """Chromium with one tab, asked by the DevTools protocol through its pipe."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = os.fdopen(commands, "wb"), os.fdopen(answers, "rb")
        self._asked, self._rest, self._session = 0, b"", ""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")
        self.ask("Emulation.setScrollbarsHidden", hidden=True)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; its result."""
        self._asked += 1
        asked = {"id": self._asked, "method": method, "params": params}
        if self._session:
            asked["sessionId"] = self._session
        self._commands.write(json.dumps(asked).encode() + b"\0")
        self._commands.flush()
        answer = self._until(lambda told: told.get("id") == self._asked)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def load(self, page: Path, width: int, scheme: str) -> dict[str, float]:
        """Open a page on such a screen; milliseconds until it was parsed and loaded, and by how much it is too wide."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=page.resolve().as_uri())
        self._until(lambda told: told.get("method") == "Page.loadEventFired")
        return dict(json.loads(self.ask("Runtime.evaluate", expression=TIMES)["result"]["value"]))

    def picture(self, path: Path) -> None:
        """Save what the whole page looks like."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _until(self, wanted: Any) -> dict[str, Any]:
        while True:
            while b"\0" not in self._rest:
                read = self._answers.read1(1 << 16)
                if not read:
                    raise RuntimeError("Chromium ended.")
                self._rest += read
            message, _, self._rest = self._rest.partition(b"\0")
            told = json.loads(message)
            if wanted(told):
                return dict(told)


@contextlib.contextmanager
def browser(chromium: str, profile: Path) -> Iterator[Browser]:
    """A Chromium with a profile of its own, ended afterwards."""
    (its_input, commands), (answers, its_output) = os.pipe(), os.pipe()

    def place() -> None:
        # Copied out of the way first: what is to be copied may itself stand at 3 or 4.
        for target, source in enumerate([os.dup(its_input), os.dup(its_output)], start=3):
            os.dup2(source, target)

    process = subprocess.Popen(
        [chromium, *CHROMIUM, f"--user-data-dir={profile}"],
        close_fds=False,
        preexec_fn=place,
        stderr=subprocess.DEVNULL,
    )
    os.close(its_input)
    os.close(its_output)
    try:
        yield Browser(commands, answers)
    finally:
        process.terminate()
        process.wait()


def pages(folder: Path) -> dict[str, Path]:
    """Real pages, by name: one of ten runs, two of them, and all as a sweep."""
    llm, env = [sys.executable, "-m", "llm"], {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [*WORDS, f"data.paths=[{ROOT}/llm/model/*.py]", *SWEPT, "name=sweep"]
    quiet = {"cwd": folder, "env": env, "stdout": subprocess.DEVNULL, "check": True}
    if not (folder / "runs/sweep/sweep.html").exists():
        subprocess.run([*llm, "train", "-m", *words], **quiet)
    first, *_, last = sorted((folder / "runs/sweep").glob("*/report.html"))
    compared = folder / "compare.html"
    subprocess.run([*llm, "runs", f"run=[{first.parent},{last.parent}]", f"out={compared}"], **quiet)
    return {
        "report of a run": last,
        "two runs compared": compared,
        "a sweep of ten runs": folder / "runs/sweep/sweep.html",
    }


def rows(
    found: dict[str, Path], shown: Browser, times: int, screenshots: Path | None
) -> Iterator[list[object]]:
    """For each page and screen its size, the medians of `times` loads, and whether it fits the screen's width."""
    for name, page in found.items():
        for width, scheme in SCREENS:
            loads = [shown.load(page, width, scheme) for _ in range(times)]
            if screenshots:
                shown.picture(screenshots / f"{page.stem}-{width}-{scheme}.png")
            ready, load = (
                f"{statistics.median(one[key] for one in loads):.0f} ms" for key in ("ready", "load")
            )
            fits = "yes" if loads[0]["over"] <= 0 else f"no, by {loads[0]['over']:.0f} px"
            yield [
                name,
                f"{page.stat().st_size / 1000:.0f} kB",
                f"{width} px, {scheme}",
                ready,
                load,
                fits,
            ]


def main() -> None:
    """Make the pages, load them and write down how that went."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--times", type=int, default=5, help="loads of each page on each screen")
    parser.add_argument("--screenshots", type=Path, help="a folder for pictures of the pages")
    parser.add_argument("--keep", type=Path, help="a folder for the runs, used again where it has them")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        for made in filter(None, (args.keep, args.screenshots)):
            made.mkdir(parents=True, exist_ok=True)
        found = pages(args.keep or Path(temporary))
        with browser(args.chromium, Path(temporary) / "profile") as shown:
            lines = list(rows(found, shown, args.times, args.screenshots))
    header = ["page", "size", "screen", "parsed", "loaded", "fits its width"]
    PAGE.write_text(
        f"# The pages\n\n`python benchmarks/pages.py`: {machine(os.cpu_count() or 1)} "
        f"Load average {os.getloadavg()[0]:.1f}.\n\nEach page is one file that fetches nothing. From navigation to the "
        f"end of DOMContentLoaded and of load, in headless\nChromium by its own clock: medians of {args.times}.\n\n"
        f"{table(header, lines)}\n",
        encoding="utf-8",
    )
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
