"""A few documents before and after the steps, spread over the whole; nothing is written."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from llm.data.documents import Document, LeftOut, ReadingPlan
from llm.data.preparation.pipeline import CHANGED, Pipeline, Tally, whole_documents
from llm.redaction import redacted_text

DOCUMENTS = 20
SHOWN = 160


class Preview(NamedTuple):
    """A document before and after the steps (None: left out), and what they did, in words."""

    id: str
    before: str
    after: str | None
    told: str


def preview(plan: ReadingPlan, pipeline: Pipeline, left_out: LeftOut) -> list[Preview]:
    """The first documents of pieces all over the plan, `DOCUMENTS` at most; what was left out is told to `left_out`."""
    return [_tried(document, pipeline) for document in _spread(plan, left_out)]


def _spread(plan: ReadingPlan, left_out: LeftOut) -> Iterator[Document]:
    chosen = min(DOCUMENTS, len(plan.pieces))
    for number in range(chosen):
        piece = plan.pieces[number * len(plan.pieces) // chosen]
        full = (document for document in whole_documents(piece.documents(left_out)) if document.data)
        yield from islice(full, DOCUMENTS * (number + 1) // chosen - DOCUMENTS * number // chosen)


def _tried(document: Document, pipeline: Pipeline) -> Preview:
    tallies = pipeline.tallies()
    after = pipeline(document.id, document.text, tallies)
    return Preview(document.id, document.text, after, _told(tallies))


def _told(tallies: Mapping[str, Tally]) -> str:
    for name, tally in tallies.items():
        if tally.dropped:
            return f"left out by {name}: {next(iter(tally.dropped))}"
    changed = [name for name, tally in tallies.items() if CHANGED in tally.remarks]
    return f"changed by {', '.join(changed)}" if changed else "kept as it is"


def render(previews: Sequence[Preview], left_out: LeftOut) -> str:
    """The documents for a person to read."""
    kept = sum(document.after is not None for document in previews)
    lines = [line for document in previews for line in _lines(document)]
    skipped = "".join(f"; {count} {reason} skipped" for reason, count in sorted(left_out.counts.items()))
    return "\n".join([*lines, "", f"{kept} of {len(previews)} documents kept{skipped}. Nothing was written."])


def _lines(document: Preview) -> list[str]:
    before, after = document.before, document.after
    size = f"{len(before):,}" if after is None else f"{len(before):,} to {len(after):,}"
    lines = [
        f"{redacted_text(document.id)} ({size} characters): {document.told}",
        f"  before  {_short(before)}",
    ]
    return lines if after is None or after == before else [*lines, f"  after   {_short(after)}"]


def _short(text: str) -> str:
    return repr(redacted_text(text[:SHOWN]))
