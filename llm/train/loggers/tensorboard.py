"""TensorBoard event files under the run's folder."""

import textwrap
from collections.abc import Sequence

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from llm.train.loggers.base import LoggedRun, need

FOLDER = "tensorboard"


class TensorBoard(TensorBoardLogger):
    """Writes event files to `tensorboard/` in the run's folder.

    When a run goes on from an earlier step, TensorBoard is told to forget what came after that step.

    Raises:
        ConfigError: the package isn't installed.
    """

    def __init__(self, run: LoggedRun) -> None:
        need("tensorboard")
        purge_step = run.resume_step + 1 if run.resume_step else None
        super().__init__(str(run.folder), name="", version=FOLDER, purge_step=purge_step)

    @rank_zero_only
    def log_samples(self, step: int, prompts: Sequence[str], texts: Sequence[str]) -> None:
        """Show what the model wrote, as text."""
        for prompt, text in zip(prompts, texts, strict=True):
            # Four spaces make it code to Markdown, whatever it holds.
            self.experiment.add_text(
                f"samples/{prompt!r}", textwrap.indent(text, "    ", lambda _: True), step
            )
