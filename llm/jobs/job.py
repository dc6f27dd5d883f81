"""One training command: its config, what was found and made for it, and how its model is judged."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llm import build
from llm.build import Config, Origin
from llm.data import Corpus, TokenStream
from llm.data.collators.base import Collator, Samples
from llm.data.mixture import MixedStream, Mixture
from llm.jobs.evaluate import Judge, evaluations, on_tasks
from llm.jobs.judged import Judged
from llm.model import ModelConfig, Transformer
from llm.train.parallelism import Parallelism, parallelism_of
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
    def parallelism(self) -> Parallelism:
        """What its strategy does."""
        return parallelism_of(self.config["trainer"]["strategy"])

    @cached_property
    def collate(self) -> Collator:
        """What makes its batches."""
        return build.collator(self.config, self.corpus.tokenizer, self.shape)

    @cached_property
    def samples(self) -> Samples:
        """Its training text as samples."""
        return self._cut(self.corpus.train)

    @cached_property
    def held_out(self) -> Samples:
        """Its held-out text as samples."""
        return self._cut(self.corpus.validation)

    def _cut(self, stream: TokenStream | MixedStream) -> Samples:
        return stream.cut(self.collate.view, self.shape.context_length, self.config["seed"])

    def refer(self) -> None:
        """Tell the collator what the model that training began with says, where it needs that; see `build.refer`."""
        build.refer(self.collate, self.config, self.corpus, lambda: self.origin, self.run.references)

    def judged(self, net: Transformer, checkpoint: str) -> list[Judged]:
        """What `eval` finds: on the held-out text, where there is any, and on tasks."""
        config, corpus = self.config, self.corpus
        names = config["eval"] if len(corpus.validation) > 1 else []
        self.refer()
        judge = Judge(
            net,
            collator=lambda: self.collate,
            objective=lambda: build.objective(config),
            checkpoint=checkpoint,
            seed=config["seed"],
        )
        return [
            *evaluations(names, corpus, judge),
            *on_tasks(config["eval"], net, corpus.tokenizer, checkpoint, config),
        ]
