"""Compares the exams of two checkpoints question by question and says which limits are broken.

Usage: `findings = check(settings, checkpoint="sft", exam=exam, base=base_exam, previous=None, records=records)`.

`check` is pure; `check_artifacts` reads what it needs from the exams' folders. Nothing is stopped here: what
`mode` does with a broken limit is the run's business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.config.schema import GateSettings
from common.errors import ContractError
from common.evaluation.statistics import CONFIDENCE, holm, mcnemar_exact, paired_bootstrap

Records = Sequence[Mapping[str, Any]]
SIDES = ("general", "domain")


@dataclass(frozen=True)
class Finding:
    """One checkpoint against one reference on one side, over the questions that both answered."""

    checkpoint: str
    reference: str
    role: Literal["base", "previous"]  # of the reference; limits hold against the base only
    side: str
    n: int
    score: float
    reference_score: float
    difference: float  # score - reference_score
    low: float  # 95% interval of the difference, paired bootstrap
    high: float
    p: float  # exact McNemar test
    p_adjusted: float  # Holm over the sides of this comparison
    limit: float | None  # least difference allowed; none: no limit applies
    broken: bool

    @property
    def significant(self) -> bool:
        """Whether chance alone explains the difference badly: adjusted p below 0.05."""
        return self.p_adjusted < 1.0 - CONFIDENCE

    @property
    def message(self) -> str:
        """One line for the console and the report."""
        sure = "significant" if self.significant else "within chance"
        text = (
            f"{self.checkpoint}: {self.side} {self.difference:+.1%} against {self.reference} "
            f"({self.reference_score:.1%} to {self.score:.1%}, 95% {self.low:+.1%} to {self.high:+.1%}, "
            f"n={self.n}, p={self.p_adjusted:.2g}: {sure})"
        )
        if not self.broken:
            return f"{text}."
        name = "max_general_drop" if self.side == "general" else "min_domain_gain"
        return f"{text}; outside the limit of {self.limit:+.1%} (gate.{name})."


def check(
    settings: GateSettings,
    *,
    checkpoint: str,
    exam: Mapping[str, Any],
    base: Mapping[str, Any],
    previous: Mapping[str, Any] | None,
    records: Mapping[str, Records],
) -> list[Finding]:
    """Return a finding for every side and reference; those with `broken` are outside the settings' limits.

    `exam`, `base` and `previous` are exam.json of each checkpoint, `records` their records by checkpoint name. A
    side that one of them lacks is skipped, and so is a reference that is the checkpoint itself or, as
    `previous`, the base. Limits are on the difference as measured; whether it is significant stands beside it.
    """
    references: list[tuple[Literal["base", "previous"], Mapping[str, Any]]] = [("base", base)]
    if previous is not None and previous["checkpoint"] != base["checkpoint"]:
        references.append(("previous", previous))
    findings: list[Finding] = []
    for role, reference in references:
        if reference["checkpoint"] != checkpoint:
            findings += _compare(settings, role, checkpoint, exam, reference, records)
    return findings


def check_artifacts(settings: GateSettings, exam: Path, base: Path, previous: Path | None) -> list[str]:
    """Return one line for every broken limit, from the folders of the exams."""
    folders = [folder for folder in (exam, base, previous) if folder is not None]
    papers = [json.loads((folder / "exam.json").read_text(encoding="utf-8")) for folder in folders]
    records = {paper["checkpoint"]: _read_records(folder) for paper, folder in zip(papers, folders, strict=True)}
    findings = check(
        settings,
        checkpoint=papers[0]["checkpoint"],
        exam=papers[0],
        base=papers[1],
        previous=papers[2] if previous is not None else None,
        records=records,
    )
    return [finding.message for finding in findings if finding.broken]


def _read_records(folder: Path) -> list[dict[str, Any]]:
    with (folder / "records.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _compare(
    settings: GateSettings,
    role: Literal["base", "previous"],
    checkpoint: str,
    exam: Mapping[str, Any],
    reference: Mapping[str, Any],
    records: Mapping[str, Records],
) -> list[Finding]:
    name = str(reference["checkpoint"])
    sides = [side for side in SIDES if exam["exam"].get(side) and reference["exam"].get(side)]
    answers = {side: _pair(name, records[name], checkpoint, records[checkpoint], side) for side in sides}
    p_values = {side: mcnemar_exact(*answers[side]) for side in sides}
    adjusted = holm(p_values)
    limits = {"general": -settings.max_general_drop, "domain": settings.min_domain_gain} if role == "base" else {}
    findings = []
    for side in sides:
        before, after = answers[side]
        difference, low, high = paired_bootstrap(before, after)
        limit = limits.get(side)
        findings.append(
            Finding(
                checkpoint=checkpoint,
                reference=name,
                role=role,
                side=side,
                n=len(after),
                score=sum(after) / len(after),
                reference_score=sum(before) / len(before),
                difference=difference,
                low=low,
                high=high,
                p=p_values[side],
                p_adjusted=adjusted[side],
                limit=limit,
                broken=limit is not None and difference < limit,
            )
        )
    return findings


def _pair(name: str, before: Records, checkpoint: str, after: Records, side: str) -> tuple[list[bool], list[bool]]:
    """Return both checkpoints' answers to the questions that both were asked, in the same order.

    Raises ContractError where they share none: the two exams were different ones.
    """
    known = {record["id"]: bool(record["correct"]) for record in before if record["side"] == side}
    pairs = [
        (known[record["id"]], bool(record["correct"]))
        for record in after
        if record["side"] == side and record["id"] in known
    ]
    if not pairs:
        raise ContractError(
            f"The exams of {name} and {checkpoint} share no {side} question, so they cannot be compared; "
            "run both again with the same data and the same `limit`."
        )
    return [a for a, _ in pairs], [b for _, b in pairs]
