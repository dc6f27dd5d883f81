"""One training command: its config, what was found and made for it, and how its model is judged."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llm import build
from llm.build import Config, Origin
from llm.data import Corpus
from llm.data.collators.base import Collator, Samples
from llm.data.mixture import Mixture
from llm.jobs.evaluate import Judge, evaluations, on_tasks
from llm.jobs.judged import Judged
from llm.model import ModelConfig, Transformer
from llm.train.parallelism import Parallelism, parallelism
from llm.train.run import Run

Choices = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One training command: its config and what was found and made for it."""

    config: Config
    choices: Choices
    run: Run
    origin: Origin
    corpus: Corpus | Mixture
    shape: ModelConfig

    @property
    def strategy(self) -> Parallelism:
        """What its strategy does."""
        return parallelism(self.config["trainer"]["strategy"])

    @cached_property
    def collate(self) -> Collator:
        """What makes its batches."""
        return build.collator(self.config, self.corpus.tokenizer, self.shape)

    @cached_property
    def samples(self) -> Samples:
        """Its training text as samples."""
        return self.corpus.train.cut(self.collate.view, self.shape.context_length, self.config["seed"])

    def refer(self, collate: Collator) -> None:
        """Tell a collator what the model that training began with says, where it needs that; see `build.refer`."""
        build.refer(collate, self.config, self.corpus, lambda: self.origin, self.run.references)

    def judged(self, net: Transformer, checkpoint: str) -> list[Judged]:
        """What `eval` finds: on the held-out text, where there is any, and on tasks."""
        config, corpus = self.config, self.corpus
        names = config["eval"] if len(corpus.validation) > 1 else []
        self.refer(self.collate)
        judge = Judge(net, lambda: self.collate, lambda: build.objective(config), checkpoint, config["seed"])
        return [
            *evaluations(names, corpus, judge),
            *on_tasks(config["eval"], net, corpus.tokenizer, checkpoint, config),
        ]
