"""Compares two checkpoints over the exam questions that both answered.

Usage: `found = adjust(compare("base", "sft", records_of_base, records_of_sft))`.

The gate puts limits on these numbers (`common.evaluation.gate`), the card prints them (`common.report.headline`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from common.evaluation.scores import SIDES, Records, score_of
from common.evaluation.statistics import CONFIDENCE, holm, mcnemar_exact, paired_bootstrap


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


def adjust(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons as one family, with p-values by Holm's method over all of them."""
    adjusted = holm({str(index): comparison.p for index, comparison in enumerate(comparisons)})
    return [replace(comparison, p_holm=adjusted[str(index)]) for index, comparison in enumerate(comparisons)]


def _key(record: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(record["side"]), str(record.get("task")), str(record["id"])
