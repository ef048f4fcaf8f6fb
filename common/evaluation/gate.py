"""Compares the exam of a checkpoint with earlier ones and says which limits it breaks.

Usage: `findings = check(settings, records, "sft", base="base", previous="cpt")`.

`check` is pure. `check_artifacts` reads what it needs from the folders of the exams. The gate stops nothing: what
`gate.mode` does about a broken limit is decided in `common.engine.run`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.config.schema import GateSettings
from common.errors import ContractError
from common.evaluation.comparison import Comparison, adjust, compare
from common.evaluation.scores import SIDES, Records

Role = Literal["base", "previous"]


@dataclass(frozen=True)
class Finding:
    """One checkpoint against one reference on one side, and the limit on the difference."""

    comparison: Comparison  # adjusted over the sides of this pair
    role: Role  # of the reference; limits hold against the base only
    limit: float | None  # least difference allowed; None: no limit applies

    @property
    def broken(self) -> bool:
        return self.limit is not None and self.comparison.difference < self.limit

    @property
    def message(self) -> str:
        """One line for the console and the report."""
        c = self.comparison
        text = (
            f"{c.after}: {c.side} {c.difference:+.1%} against {c.before} "
            f"({c.score_before['score']:.1%} to {c.score_after['score']:.1%}, 95% {c.low:+.1%} to {c.high:+.1%}, "
            f"n={c.n}, p={c.p_holm:.2g}: {'significant' if c.proven else 'within chance'})"
        )
        if not self.broken:
            return f"{text}."
        name = "max_general_drop" if c.side == "general" else "min_domain_gain"
        return f"{text}; outside the limit of {self.limit:+.1%} (gate.{name})."


def check(
    settings: GateSettings, records: Mapping[str, Records], checkpoint: str, *, base: str, previous: str | None = None
) -> list[Finding]:
    """Return a finding for each reference and each side that both exams have.

    `records` are the exam records by checkpoint. No checkpoint is compared with itself, and `previous` is left out
    where it is the base. A limit is on the difference as measured, significant or not. Raises ContractError where two
    exams share no question of a side.
    """
    limits = {"general": -settings.max_general_drop, "domain": settings.min_domain_gain}
    references: list[tuple[Role, str]] = [("base", base)]
    if previous not in (None, base):
        references.append(("previous", str(previous)))
    findings = []
    for role, reference in references:
        if reference == checkpoint:
            continue
        found = adjust(compare(reference, checkpoint, records[reference], records[checkpoint]))
        _check_shared(found, reference, checkpoint, records)
        findings += [Finding(c, role, limits[c.side] if role == "base" else None) for c in found]
    return findings


def check_artifacts(settings: GateSettings, exam: Path, base: Path, previous: Path | None) -> list[str]:
    """Return one line for each broken limit, from the folders of the exams."""
    names, records = [], {}
    for folder in (exam, base, *([previous] if previous is not None else [])):
        name = str(json.loads((folder / "exam.json").read_text(encoding="utf-8"))["checkpoint"])
        names.append(name)
        records[name] = _read_records(folder)
    findings = check(settings, records, names[0], base=names[1], previous=names[2] if len(names) > 2 else None)
    return [finding.message for finding in findings if finding.broken]


def _read_records(folder: Path) -> list[dict[str, Any]]:
    with (folder / "records.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _check_shared(found: list[Comparison], before: str, after: str, records: Mapping[str, Records]) -> None:
    for side in SIDES:
        asked = all(any(record["side"] == side for record in records[name]) for name in (before, after))
        if asked and side not in {comparison.side for comparison in found}:
            raise ContractError(
                f"The exams of {before} and {after} share no {side} question, so they cannot be compared. "
                "Run both again with the same data and the same `limit`."
            )
