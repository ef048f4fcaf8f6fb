"""The exams of several domains that one checkpoint sat, as one.

Usage: `joined = join("cpt-legal", {"medical": sat, "legal": other})`; `joined.scores["exam"]["domain"]`.

The side `domain` then has the questions and texts of all domains. What they share, such as the general world, counts
once. It sums up records that are there and runs no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.evaluation.scores import by_probe, by_side, by_source, text_scores, written_scores

SHARED = "general"  # the side that all domains may share
Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Sat:
    """One exam: what exam.json says, a record for each question, and one for each held-out text."""

    scores: Mapping[str, Any]
    records: Records
    texts: Records


def join(checkpoint: str, exams: Mapping[str, Sat]) -> Sat:
    """Return the exams by domain as one. Records of a domain's own questions have its name before their id."""
    records = _united({domain: sat.records for domain, sat in exams.items()})
    texts = _united({domain: sat.texts for domain, sat in exams.items()})
    first, everything = next(iter(exams.values())).scores, [sat.scores for sat in exams.values()]
    read = text_scores(texts)
    scores = {
        "checkpoint": checkpoint,
        "precision": first.get("precision"),
        "exam": by_side(records),
        "bits_per_byte": {side: facts["bits_per_byte"] for side, facts in read.items()},
        "texts": read,
        "written": written_scores(records),
        "probes": by_probe(records),
        "languages": {},  # of one domain each: see its own exam
        "sources": by_source(records),
        **{part: _merged(scores.get(part) for scores in everything) for part in ("tasks", "extra")},
    }
    left_out = dict.fromkeys(name for one in everything for name in one.get("left_out") or ())
    return Sat(scores | ({"left_out": list(left_out)} if left_out else {}), records, texts)


def _united(records: Mapping[str, Records]) -> list[Mapping[str, Any]]:
    found: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for domain, rows in records.items():
        for row in rows:
            shared = row["side"] == SHARED
            name = str(row["id"]) if shared else f"{domain}/{row['id']}"
            key = (str(row["side"]), str(row.get("task")), name, str(row.get("bytes")))
            found.setdefault(key, {**row, "id": name})
    return list(found.values())


def _merged(parts: Any) -> dict[str, Any]:
    return {name: value for part in parts for name, value in (part or {}).items()}
