"""Hold the exam of a stage against that of the base: which limits it breaks, and what `gate.mode` does about one.

Usage: `for line in broken_limits(node, plan, artifacts, made): console.line(line)`;
`findings = check(settings, "base", "sft", records_of_base, records_of_sft)`.

`check` is pure. `check_artifacts` reads what it needs from the folders of the exams.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.config.json import parse_json, read_json
from common.config.node import Node
from common.config.schema import GateSettings
from common.engine.plan import Plan
from common.errors import ContractError, GateError
from common.evaluation.comparison import Comparison, adjust, compare
from common.evaluation.scores import SIDES, Records
from common.store.artifacts import Artifact


def broken_limits(node: Node, plan: Plan, artifacts: Mapping[str, Artifact], made: Collection[str]) -> list[str]:
    """Return what to say of a stage that examined a checkpoint; nothing for any other.

    A warning is for the run that `made` one of the two exams, not again for every later one. Raises GateError where
    the settings stop the chain.
    """
    if node.kind != "evaluate":
        return []
    settings, pipeline = plan.part(node).resolved.config.gate, plan.resolved.pipeline
    examined = pipeline.stages[str(node.parent)]
    if examined.domain not in (None, node.domain or None):
        return []  # what the training of one domain costs another is on the card of a sequence
    alike = [n.name for n in plan.resolved.nodes if (n.kind, n.domain) == (node.kind, node.domain)]
    exams = {name: artifacts[name] for name in alike if name in artifacts}
    first = next(iter(exams))  # the first examined stage that is there
    is_control = node.parent in pipeline.controls
    shown_before = settings.mode == "warn" and not {node.name, first} & set(made)
    if settings.mode == "off" or is_control or first == node.name or shown_before:
        return []
    lines = check_artifacts(settings, exams[node.name].path, exams[first].path, str(node.parent))
    if lines and settings.mode == "stop":
        raise GateError(f"The gate stops the chain: {lines[0]} Set gate.mode=warn to go on.")
    return lines


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
