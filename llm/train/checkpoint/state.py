"""What training saves and takes up again: a model's weights and its optimizer's state, by the names of parameters."""

from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from llm.train.checkpoint.manifest import MODEL, OPTIMIZER
from llm.train.checkpoint.model import restore_weights, weights
from llm.train.checkpoint.optimizer import optimizer_state, restore_optimizer


class TrainingState:
    """The weights of a model and the state of its optimizer, whole or as torch has split them.

    `llm.train.zero.ZeroState` does the same where DeepSpeed has split them. All processes call each method together.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._model, self._optimizer = model, optimizer

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What this process writes of a checkpoint, by the names of its files and of the tensors."""
        return {MODEL: weights(self._model), OPTIMIZER: optimizer_state(self._model, self._optimizer)}

    def restore(self, folder: Path) -> None:
        """Fill weights and state from a checkpoint.

        Raises:
            CheckpointError: it is of another model or optimizer, or a value is not finite.
        """
        restore_weights(self._model, folder)
        restore_optimizer(self._model, self._optimizer, folder)
