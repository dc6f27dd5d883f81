"""What a preparation found, as report.json and as the text that the command prints."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llm.data.corpus import TokenStream
from llm.data.documents import LeftOut, ReadingPlan
from llm.data.documents.verbatim import text_of
from llm.data.preparation.assemble import Assembled
from llm.data.preparation.encode import LONGEST_KEPT
from llm.data.preparation.survey import Survey

if TYPE_CHECKING:
    from llm.tokenizer import Tokenizer

SAMPLES = 3
SAMPLE_TOKENS = 64
VOCABULARY_SAMPLE = 20


def make_report(
    assembled: Assembled, records: Sequence[dict[str, Any]], plan: ReadingPlan, tokenizer: "Tokenizer"
) -> dict[str, Any]:
    """The report, but for its samples."""
    streams = {name: vars(counts) for name, counts in assembled.streams.items()}
    total = {key: sum(stream[key] for stream in streams.values()) for key in ("documents", "bytes", "tokens")}
    left_out = LeftOut(plan.left_out.counts.copy(), dict(plan.left_out.cases))
    for record in records:
        left_out.include(record["skipped"], record["cases"])
    survey = Survey()
    for record in records:
        survey.include(record["survey"])
    duplicates = left_out.counts.pop("duplicate", 0) + assembled.duplicates
    return {
        **total,
        "streams": streams,
        "validation_share": streams["validation"]["bytes"] / max(1, total["bytes"]),
        "bytes_per_token": total["bytes"] / max(1, total["tokens"]),
        "unknown_share": _share(assembled.id_counts, _unknown_ids(tokenizer)),
        "duplicates_dropped": duplicates,
        "skipped": dict(sorted(left_out.counts.items())),
        "skipped_cases": dict(sorted(left_out.cases.items())),
        "longest_documents": _longest(records),
        "vocabulary_used": int((assembled.id_counts > 0).sum()),
        "vocab_size": tokenizer.vocab_size,
        "vocabulary_sample": _vocabulary_sample(assembled.id_counts, tokenizer),
        **vars(survey),
        "cleaning": plan.cleaning,
    }


def _vocabulary_sample(counts: np.ndarray, tokenizer: "Tokenizer") -> list[tuple[int, str, int]]:
    """Id, text and uses of the tokens that are used most, and of as many from the middle of those that are used."""
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    middle = order[VOCABULARY_SAMPLE:][:: max(1, (len(order) - VOCABULARY_SAMPLE) // VOCABULARY_SAMPLE)]
    chosen = [*order[:VOCABULARY_SAMPLE].tolist(), *middle[:VOCABULARY_SAMPLE].tolist()]
    return [(id_, repr(tokenizer.decode_bytes([id_]))[1:], int(counts[id_])) for id_ in chosen]


def _share(counts: np.ndarray, ids: list[int]) -> float:
    return float(counts[ids].sum() / max(1, counts.sum()))


def _unknown_ids(tokenizer: "Tokenizer") -> list[int]:
    """Ids that stand for no whole character: unknown text, and the bytes that it is spelled in instead."""
    special = set(tokenizer.special_tokens.values()) - {tokenizer.special_tokens.get("<unk>")}
    return [
        id_
        for id_ in range(tokenizer.vocab_size)
        if id_ not in special and _is_unknown(tokenizer.decode_bytes([id_]))
    ]


def _is_unknown(data: bytes) -> bool:
    try:
        return not data.decode("utf-8")
    except UnicodeDecodeError:
        return True


def _longest(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    by_digest = {
        digest: (size, id_) for record in reversed(records) for size, id_, digest in record["longest"]
    }
    longest = sorted(by_digest.values(), key=lambda item: (-item[0], item[1]))[:LONGEST_KEPT]
    return [{"id": id_, "bytes": size} for size, id_ in longest]


def samples(stream: TokenStream, tokenizer: "Tokenizer") -> list[str]:
    """How the beginnings of a few documents, spread over the stream, read when they are decoded from their tokens."""
    if not stream.n_documents:
        return []
    chosen = np.unique(np.linspace(0, stream.n_documents - 1, SAMPLES).astype(int))
    starts = stream.documents[chosen].astype(np.int64)
    ends = stream.ends[chosen].astype(np.int64)
    documents = (
        stream.tokens[start : min(end, start + SAMPLE_TOKENS)]
        for start, end in zip(starts, ends, strict=True)
    )
    return [tokenizer.decode(text_of(ids, tokenizer.end_of_text).tolist()) for ids in documents]


def _steps(cleaning: dict[str, Any] | None) -> list[str]:
    """A line for each step: what it left out, and why most of it."""
    if not cleaning:
        return []
    lines = [f"{cleaning['documents']:,} documents read, {cleaning['kept_documents']:,} kept:"]
    for name, tally in cleaning["steps"].items():
        dropped = sum(tally["dropped"].values())
        reasons = Counter(tally["dropped"]).most_common(3) or Counter(tally["remarks"]).most_common(3)
        told = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
        lines.append(
            f"  {name:<18} left out {dropped:,} of {tally['documents']:,}" + (f": {told}" if told else "")
        )
    return lines


def render(report: dict[str, Any]) -> str:
    """The report for a person to read."""
    streams, skipped = report["streams"], report["skipped"]
    lines = [
        f"{report['documents']:,} documents, {report['bytes'] / 1e6:,.2f} MB, {report['tokens']:,} tokens "
        f"({report['bytes_per_token']:.2f} bytes per token, {report['unknown_share']:.2%} in bytes or unknown)",
        f"training {streams['train']['documents']:,} documents, {streams['train']['tokens']:,} tokens; "
        f"held out {streams['validation']['documents']:,} documents, {streams['validation']['tokens']:,} tokens "
        f"({report['validation_share']:.1%} of the text)",
        f"vocabulary {report['vocabulary_used']:,} of {report['vocab_size']:,} ids used; "
        f"{report['duplicates_dropped']:,} duplicates dropped"
        + "".join(f"; {count:,} {reason} skipped" for reason, count in skipped.items()),
        *_steps(report["cleaning"]),
        "longest documents:",
        *(f"  {document['bytes']:>13,} bytes  {document['id']}" for document in report["longest_documents"]),
        "decoded from tokens:",
        *(f"  {sample[:100]!r}" for sample in report["samples"]),
    ]
    return "\n".join(lines)
