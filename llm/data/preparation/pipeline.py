"""The steps of a config in their order, and the tally of what each did to the documents that it saw."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

from llm.data.documents import BETWEEN, Document
from llm.data.files.cutting import MAX_PIECE_BYTES
from llm.data.steps.base import Step
from llm.data.steps.duplicates import Comparison, LineComparison
from llm.errors import ConfigError
from llm.redaction import redacted_text

AnyStep = Step | Comparison | LineComparison
EXAMPLES_KEPT = 3
EXAMPLE_CHARACTERS = 300
CHANGED = "changed"


@dataclass
class Tally:
    """What a step did: what it saw, what it left out for which reason, what it remarked, with some examples.

    An example is a document's id and what was left out or, of a change, how the text was and is near its beginning.
    """

    documents: int = 0
    bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_bytes: int = 0
    remarks: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[list[str]]] = field(default_factory=dict)

    def show(self, label: str, id_: str, *texts: str) -> None:
        """Keep an example, unless there are enough."""
        some = self.examples.setdefault(label, [])
        if len(some) < EXAMPLES_KEPT:
            some.append([redacted_text(text[:EXAMPLE_CHARACTERS]) for text in (id_, *texts)])

    def include(self, other: Mapping[str, Any]) -> None:
        """Add the tally of another piece."""
        self.documents += other["documents"]
        self.bytes += other["bytes"]
        self.dropped_bytes += other["dropped_bytes"]
        self.dropped.update(other["dropped"])
        self.remarks.update(other["remarks"])
        for label, some in other["examples"].items():
            mine = self.examples.setdefault(label, [])
            mine += some[: EXAMPLES_KEPT - len(mine)]


class Pipeline:
    """Named steps in order: those for one document, those that compare documents, those that compare their lines.

    Raises:
        ConfigError: the order is another, or two compare lines.
    """

    def __init__(self, steps: Mapping[str, AnyStep]) -> None:
        self.lines = {name: step for name, step in steps.items() if isinstance(step, LineComparison)}
        self.comparisons = {name: step for name, step in steps.items() if isinstance(step, Comparison)}
        compare = {*self.lines, *self.comparisons}
        self.steps = {name: cast(Step, step) for name, step in steps.items() if name not in compare}
        self.names = [*self.steps, *self.comparisons, *self.lines]
        for name, other in pairwise(steps):
            if self.names.index(name) > self.names.index(other):
                what = "lines" if name in self.lines else "documents"
                raise ConfigError(
                    f"data.steps: {other} stands behind {name}, which compares {what} as all other steps leave them: put the "
                    "steps that compare documents behind the others, and those that compare lines last."
                )

        if len(self.lines) > 1:
            raise ConfigError(f"data.steps: {' and '.join(self.lines)} both compare lines; leave one out.")

    def __len__(self) -> int:
        return len(self.names)

    def settings(self) -> list[dict[str, Any]]:
        """What decides the result, in order."""
        ordered: list[AnyStep] = [*self.steps.values(), *self.comparisons.values(), *self.lines.values()]
        return [step.settings() for step in ordered]

    def tallies(self) -> dict[str, Tally]:
        """An empty tally for each step."""
        return {name: Tally() for name in self.names}

    def __call__(self, id_: str, text: str, tallies: Mapping[str, Tally]) -> str | None:
        """The text after all steps but comparisons, None where one left it out."""
        size = len(text.encode())
        for name, step in self.steps.items():
            tally = tallies[name]
            tally.documents += 1
            tally.bytes += size
            after, label = step(text)
            if after is None or not after.strip():
                label = label or "nothing is left"
                tally.dropped[label] += 1
                tally.dropped_bytes += size
                tally.show(label, id_, text)
                return None
            if label:
                tally.remarks[label] += 1
                tally.show(label, id_, text)
            if after != text:
                tally.remarks[CHANGED] += 1
                tally.show(CHANGED, id_, *_difference(text, after))
                text, size = after, len(after.encode())
        return text


def _difference(before: str, after: str) -> Sequence[str]:
    """Both texts from a little before the first place where they differ."""
    pairs = enumerate(zip(before, after, strict=False))
    at = next((at for at, (one, other) in pairs if one != other), min(len(before), len(after)))
    start = max(0, at - EXAMPLE_CHARACTERS // 4)
    return before[start : start + EXAMPLE_CHARACTERS], after[start : start + EXAMPLE_CHARACTERS]


def whole_documents(documents: Iterator[Document]) -> Iterator[Document]:
    """Documents with their parts joined; one above `MAX_PIECE_BYTES` as several, each judged by itself.

    Raises:
        ConfigError: there are pairs of texts among them.
    """
    waiting: list[Document] = []
    for document in documents:
        if BETWEEN in document.data:
            raise ConfigError(
                "data.steps: steps are for texts, and this source gives pairs of texts; leave them out."
            )
        size = sum(len(part.data) for part in waiting)
        if waiting and (document.offset == 0 or size + len(document.data) > MAX_PIECE_BYTES):
            # No part is held while the whole is worked on.
            whole, waiting = _joined(waiting), []
            yield whole
        waiting.append(document)
    if waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[Document]) -> Document:
    first = parts[0]
    id_ = f"{first.id}, byte {first.offset}" if first.offset else first.id
    return Document(id_, b"".join(part.data for part in parts))
