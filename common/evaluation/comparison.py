"""Compares two checkpoints over the exam questions that both answered, and the held-out texts that both read.

Usage: `found = adjust(compare("base", "sft", records_of_base, records_of_sft))`;
`compare_texts("base", "cpt", documents_of_base, documents_of_cpt)`.

The gate puts limits on these numbers (`common.engine.gate`), the card prints them (`common.report.headline`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from common.evaluation.scores import SIDES, Records, score_of
from common.evaluation.statistics import CONFIDENCE, holm, mcnemar_exact, paired_bootstrap, ratio_of_sums


@dataclass(frozen=True)
class Comparison:
    """One side of the exam, the same questions answered by two checkpoints."""

    before: str
    after: str
    side: str
    n: int  # questions that both answered
    gained: int  # wrong before, right after
    lost: int
    score_before: Mapping[str, Any]  # score, n and the 95% Wilson interval low to high, over these questions
    score_after: Mapping[str, Any]
    difference: float  # after - before
    low: float  # 95% interval of the difference, paired bootstrap
    high: float
    p: float  # exact McNemar test
    p_holm: float  # adjusted over the comparisons that `adjust` was given

    @property
    def proven(self) -> bool:
        """Whether chance is an unlikely explanation: adjusted p below 0.05."""
        return self.p_holm < 1.0 - CONFIDENCE


@dataclass(frozen=True)
class TextComparison:
    """One side's held-out texts, the same documents read by two checkpoints."""

    before: str
    after: str
    side: str
    n: int  # documents that both read
    bytes: int  # of these documents, in UTF-8
    bits_before: float  # bits per byte over these documents; lower is better
    bits_after: float
    change: float  # bits_after / bits_before - 1: -0.12 is 12% fewer bits
    low: float | None  # 95% interval of the change, paired bootstrap over documents; None for a single document
    high: float | None

    @property
    def proven(self) -> bool:
        """Whether the interval excludes no change. It is not adjusted for the number of comparisons."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def compare(before: str, after: str, records_before: Records, records_after: Records) -> list[Comparison]:
    """Return a comparison for each side with questions that both answered; probes have no side and do not count."""
    known = {_key(record): bool(record["correct"]) for record in records_before}
    found = []
    for side in SIDES:
        shared = [record for record in records_after if record["side"] == side and _key(record) in known]
        if not shared:
            continue
        a, b = [known[_key(record)] for record in shared], [bool(record["correct"]) for record in shared]
        difference, low, high = paired_bootstrap(a, b)
        p = mcnemar_exact(a, b)
        found.append(Comparison(
            before=before, after=after, side=side, n=len(shared),
            gained=sum(y and not x for x, y in zip(a, b, strict=True)),
            lost=sum(x and not y for x, y in zip(a, b, strict=True)),
            score_before=score_of(a) or {}, score_after=score_of(b) or {},
            difference=difference, low=low, high=high, p=p, p_holm=p,
        ))  # fmt: skip
    return found


def compare_texts(before: str, after: str, read_before: Records, read_after: Records) -> list[TextComparison]:
    """Return a comparison for each side with documents that both read; the records are those of texts.jsonl."""
    known = {(record["side"], record["id"], record["bytes"]): record for record in read_before}
    found = []
    for side in SIDES:
        pairs = [
            (known[key], record)
            for record in read_after
            if record["side"] == side and (key := (side, record["id"], record["bytes"])) in known
        ]
        if not pairs:
            continue
        a, b = ([float(record["bits"]) for record in records] for records in zip(*pairs, strict=True))
        size = sum(int(record["bytes"]) for record, _ in pairs)
        ratio, low, high = ratio_of_sums(b, a)
        found.append(TextComparison(
            before=before, after=after, side=side, n=len(pairs), bytes=size,
            bits_before=sum(a) / size, bits_after=sum(b) / size, change=ratio - 1,
            low=None if low is None else low - 1, high=None if high is None else high - 1,
        ))  # fmt: skip
    return found


def adjust(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons as one family, with p-values by Holm's method over all of them."""
    adjusted = holm({str(index): comparison.p for index, comparison in enumerate(comparisons)})
    return [replace(comparison, p_holm=adjusted[str(index)]) for index, comparison in enumerate(comparisons)]


def _key(record: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(record["side"]), str(record.get("task")), str(record["id"])
