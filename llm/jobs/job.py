"""One training command: its config, what was found and made for it, and how its model is evaluated."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llm import build
from llm.build import Config, Origin
from llm.data import Corpus
from llm.data.collators.base import Collator, SampleCost, measure_samples
from llm.data.mixture import AnyCorpus, AnyStream, samples_of
from llm.data.sampling.view import SampleView
from llm.evaluation import Subject
from llm.jobs.evaluate import BATCH_SIZE, evaluations, on_tasks
from llm.jobs.scored import Scored
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
    corpus: AnyCorpus
    model_config: ModelConfig

    @property
    def parallelism(self) -> Parallelism:
        """What its strategy does."""
        return parallelism_of(self.config["trainer"]["strategy"])

    @cached_property
    def collate(self) -> Collator:
        """What makes its batches."""
        return build.collator(self.config, self.corpus.tokenizer, self.model_config)

    @cached_property
    def training_collate(self) -> Collator:
        """What makes the batches that it is trained and scored on: see `build.with_reference_log_probabilities`."""
        reference, kept = (lambda: self.origin), self.run.references
        return build.with_reference_log_probabilities(self.collate, self.config, self.corpus, reference, kept)

    @cached_property
    def train_view(self) -> SampleView:
        """Its training text as samples."""
        return self._samples(self.corpus.train)

    @cached_property
    def validation_view(self) -> SampleView:
        """Its held-out text as samples."""
        return self._samples(self.corpus.validation)

    def _samples(self, stream: AnyStream) -> SampleView:
        return samples_of(self.collate, stream, self.model_config.context_length, self.config["seed"])

    @cached_property
    def sample_cost(self) -> SampleCost:
        """What the samples of its training text ask of its model."""
        return measure_samples(self.collate, self.train_view)

    def evaluate(self, net: Transformer, checkpoint: str) -> list[Scored]:
        """What `eval` finds: on the held-out text, where there is any, and on tasks."""
        config, corpus = self.config, self.corpus
        names = config["eval"] if len(corpus.validation) > 1 else []

        def subject(part: Corpus) -> Subject:
            return Subject(
                net,
                part.tokenizer,
                part.validation,
                collator=lambda: self.training_collate,
                objective=lambda: build.objective(config),
                batch_size=BATCH_SIZE,
                seed=config["seed"],
            )

        return [
            *evaluations(names, corpus, subject, checkpoint),
            *on_tasks(config["eval"], net, corpus.tokenizer, checkpoint, config),
        ]
