"""What the card says about the methods of papers that stages used: settings, what was measured, and its course.

Usage: `parts += method_notes(chain)`; nothing where no stage used any.

It prints what manifests say. What methods are worth is measured elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from common.report.chain import Chain
from common.report.markdown import MISSING, code, number, plain, table
from common.report.tables import measured_parts

Facts = Mapping[str, Any]


def method_notes(chain: Chain) -> list[str]:
    """Return which methods from papers the stages used, with their settings, and what was measured of them."""
    found = measured_parts(chain, "methods")
    body = table(
        found,
        {
            "Stage": lambda row: code(row[0]),
            "Method": lambda row: f"{code(row[1])}: {plain(row[2]['phrase'])}",
            "Paper": lambda row: plain(_paper(row[2])),
            "Settings": lambda row: _listed(row[2]["settings"]),
            "Measured at the end": lambda row: _listed(row[2]["measured"]) or MISSING,
        },
        text=5,
    )
    return ["### Methods", body, *_courses(found)] if body else []


def _paper(facts: Facts) -> str:
    """Return the paper of a method and what of it is ours."""
    paper, ours = facts["paper"], facts.get("ours")
    return f"{paper}; ours: {ours}" if ours and paper != "ours" else paper


def _courses(found: Sequence[tuple[str, str, Facts]]) -> Iterator[str]:
    """Yield a table for each method whose numbers were followed over the steps."""
    for name, method, facts in found:
        if course := facts.get("course"):
            columns: dict[str, Callable[[tuple[str, str, Facts]], str]] = {
                "Stage": lambda row: code(row[0]),
                "Method": lambda row: code(row[1]),
                "Step": lambda row: number(row[2]["step"]),
            }
            keys = dict.fromkeys(key for line in course for key in line if key != "step")
            columns |= {plain(key.capitalize()): _numbers(key) for key in keys}
            yield table([(name, method, line) for line in course], columns, text=2)


def _numbers(key: str) -> Callable[[tuple[str, str, Facts]], str]:
    """Return what writes a number of a line, or that it has none."""
    return lambda row: f"{row[2][key]:.4g}" if key in row[2] else MISSING


def _listed(facts: Facts) -> str:
    values = (
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in facts.items()
        if value is not None
    )
    return plain(", ".join(values))
