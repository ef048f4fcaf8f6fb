"""Compares the exam of a checkpoint with the base's and says which limits it breaks.

Usage: `findings = check(settings, "base", "sft", records_of_base, records_of_sft)`.

`check` is pure. `check_artifacts` reads what it needs from the folders of the exams. The gate stops nothing: what
`gate.mode` does about a broken limit is decided in `common.engine.gate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.config.json import parse_json, read_json
from common.config.schema import GateSettings
from common.errors import ContractError
from common.evaluation.comparison import Comparison, adjust, compare
from common.evaluation.scores import SIDES, Records


@dataclass(frozen=True)
class Finding:
    """A checkpoint against the base on one side, and the least difference that is allowed."""

    comparison: Comparison  # adjusted over the sides
    limit: float

    @property
    def broken(self) -> bool:
        return not self.comparison.difference >= self.limit  # also where one of them is no number

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


def check(settings: GateSettings, base: str, checkpoint: str, records_base: Records, records: Records) -> list[Finding]:
    """Return a finding for each side that both exams have; none for the base itself.

    A limit is on the difference as measured, significant or not. Raises ContractError where the two exams share no
    question of a side.
    """
    if checkpoint == base:
        return []
    limits = {"general": -settings.max_general_drop, "domain": settings.min_domain_gain}
    found = adjust(compare(base, checkpoint, records_base, records))
    for side in SIDES:
        asked = all(any(record["side"] == side for record in exam) for exam in (records_base, records))
        if asked and side not in {comparison.side for comparison in found}:
            raise ContractError(
                f"The exams of {base} and {checkpoint} share no {side} question, so they cannot be compared. "
                "Run both again with the same data and the same `limit`."
            )
    return [Finding(comparison, limits[comparison.side]) for comparison in found]


def check_artifacts(settings: GateSettings, exam: Path, base: Path, name: str = "") -> list[str]:
    """Return one line for each broken limit, from the folders of the exams; `name` is the run's for the checkpoint."""
    (said, records), (name_of_base, records_base) = _read(exam), _read(base)
    findings = check(settings, name_of_base, name or said, records_base, records)
    return [finding.message for finding in findings if finding.broken]


def _read(folder: Path) -> tuple[str, Records]:
    """Return the checkpoint that an exam is of, and its records. Raises ContractError for what no exam has written."""
    again = "Run the exam again with `just rerun`."
    name = read_json(folder / "exam.json", advice=again)["checkpoint"]
    records = []
    with (folder / "records.jsonl").open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                records.append(parse_json(line))
            except ValueError as error:
                raise ContractError(f"{folder / 'records.jsonl'}, line {number}: {error}. {again}") from error
            if not isinstance(records[-1], dict) or type(records[-1].get("correct", False)) is not bool:
                raise ContractError(
                    f"{folder / 'records.jsonl'}, line {number}: `correct` is neither true nor false. {again}"
                )
    return str(name), records
