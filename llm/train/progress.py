"""What a person sees while a model trains: a bar on a terminal, short lines anywhere else."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table
from rich.text import Text

from llm.train.metrics import StepMetrics

REFRESH_SECONDS = 0.5
LINE_SECONDS = 10.0
# What a model writes may move the cursor or worse; control characters show as their pictures instead.
CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
CONTROLS |= {0x7F: 0x2421} | dict.fromkeys(
    [*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD
)


class TrainingProgress(ProgressBar):
    """Shows steps, figures and samples on rank 0; the figures come from the `Meter`, whose observer it is.

    On a terminal a bar is redrawn twice a second at most, and samples are printed above it. Elsewhere, such as in a
    file, a logged step is a line, every ten seconds at most, the last one always.

    Args:
        save_every_n_steps: the interval between checkpoints, to say when the next one is.
        console: where to print; standard output if None.
        now: tells the time in seconds.
    """

    def __init__(
        self,
        save_every_n_steps: int | None = None,
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.save_every_n_steps = save_every_n_steps
        self.console = console or Console()
        self._now = now
        self._enabled = True
        self._live: Live | None = None
        self._drawn = self._printed = -float("inf")
        self._step = 0
        self._total: int | None = None
        self._doing = "training"
        self._metrics: StepMetrics | None = None
        self._metrics_at = 0.0
        self._val_loss: float | None = None

    def disable(self) -> None:
        """Show nothing."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave showing to rank 0."""
        super().setup(trainer, pl_module, stage)
        if not trainer.is_global_zero:
            self.disable()

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Draw the bar."""
        self._step = trainer.global_step
        self._total = trainer.max_steps if trainer.max_steps > 0 else None
        if self._enabled and self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(console=self.console, auto_refresh=False)
            self._live.start()
            self._draw()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Redraw the bar if it is time."""
        if self._live is not None and self._now() - self._drawn >= REFRESH_SECONDS:
            self._step = trainer.global_step
            self._draw()

    def on_validation_start(self, *_: Any) -> None:
        """Say that it is validating."""
        self._now_doing("validating")

    def on_validation_end(self, *_: Any) -> None:
        """Say that training goes on."""
        self._now_doing("training")

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Leave the last figures standing."""
        self._stop(trainer, "trained")

    def on_exception(self, trainer: L.Trainer, *_: Any) -> None:
        """Leave the terminal as it was."""
        self._stop(trainer, "stopped at")

    def teardown(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Leave the terminal as it was."""
        self._stop(trainer, "stopped at")

    def show_step(self, metrics: StepMetrics) -> None:
        """Take a logged step's figures."""
        self._metrics, self._metrics_at = metrics, self._now()
        if not self._enabled or self._live is not None:
            return
        last = metrics.step == metrics.total_steps
        if last or self._metrics_at - self._printed >= LINE_SECONDS:
            self._printed = self._metrics_at
            self._say(
                f"step {of(metrics.step, metrics.total_steps)}  {figures(metrics)}{left(metrics.seconds_left)}"
            )

    def show_validation(self, step: int, loss: float, bits_per_byte: float | None) -> None:
        """Take a validation's figures."""
        self._val_loss = loss
        if self._enabled and self._live is None:
            bits = "" if bits_per_byte is None else f"  val bits/byte {bits_per_byte:.4f}"
            self._say(f"step {of(step, self._total)}  val loss {loss:.4f}{bits}")

    def show_samples(self, step: int, prompts: Sequence[str], texts: Sequence[str]) -> None:
        """Print what the model wrote at a step, after each prompt."""
        if not self._enabled:
            return
        for prompt, text in zip(prompts, texts, strict=True):
            self._say(f"--- a sample of step {step:,}", style="bold")
            shown = Text(self._printable(prompt), style="dim") + Text(self._printable(text))
            self.console.print(Padding(shown, (0, 0, 1, 2)))

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print a line without breaking the bar."""
        if self._enabled:
            self._say(" ".join(map(str, args)))

    def _say(self, line: str, style: str = "") -> None:
        self.console.print(Text(self._printable(line), style=style), soft_wrap=True)

    def _printable(self, text: str) -> str:
        return text.translate(CONTROLS).encode(self.console.encoding, "replace").decode(self.console.encoding)

    def _now_doing(self, what: str) -> None:
        self._doing = what
        if self._live is not None:
            self._draw()

    def _stop(self, trainer: L.Trainer, how: str) -> None:
        if self._live is not None:
            self._step = trainer.global_step
            self._now_doing(how)
            self._live.stop()
            self._live = None

    def _draw(self) -> None:
        assert self._live is not None
        self._drawn = self._now()
        self._live.update(self._view(), refresh=True)

    def _view(self) -> RenderableType:
        grid = Table.grid(expand=True, padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        bar = Bar(total=self._total, completed=self._step, pulse=self._total is None)
        share = f"{self._step / self._total:.0%}" if self._total else ""
        grid.add_row(f"{self._doing} {of(self._step, self._total)}", bar, share + left(self._seconds_left()))
        return Group(grid, Text(self._second_line(), style="dim"))

    def _second_line(self) -> str:
        parts = [figures(self._metrics)] if self._metrics else ["the first figures are on their way"]
        if self._val_loss is not None:
            parts.append(f"val loss {self._val_loss:.4f}")
        if self.save_every_n_steps:
            parts.append(
                f"next save at {(self._step // self.save_every_n_steps + 1) * self.save_every_n_steps:,}"
            )
        return "  ".join(parts)

    def _seconds_left(self) -> float | None:
        """What the last logged step said, less the time since."""
        if self._metrics is None or self._metrics.seconds_left is None:
            return None
        return max(0.0, self._metrics.seconds_left - (self._now() - self._metrics_at))


def of(step: int, total: int | None) -> str:
    """How far a run is."""
    return f"{step:,}" if total is None else f"{step:,}/{total:,}"


def figures(metrics: StepMetrics) -> str:
    """A step's figures in a line."""
    bits = "" if metrics.bits_per_byte is None else f"  bits/byte {metrics.bits_per_byte:.4f}"
    return (
        f"loss {metrics.loss:.4f}{bits}  lr {metrics.lr:.2e}  "
        f"{short(metrics.tokens_per_second)} tokens/s  MFU {metrics.mfu:.1%}  data wait {metrics.data_wait:.0%}"
    )


def short(number: float) -> str:
    """A number with a unit, such as 12.3k."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}"
    return f"{number:.0f}"


def left(seconds: float | None) -> str:
    """How long it will take, for the end of a line; nothing where that is unknown."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"  {hours}:{minutes:02}:{rest:02} left" if hours else f"  {minutes}:{rest:02} left"
