"""Sums up the records of one exam: by side, by probe, by language, by source.

Usage: `score_of([True, False])` gives {"score", "n", "low", "high"}.

It counts what `common.evaluation.exam` has recorded and runs no model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from common.evaluation.languages import fertility
from common.evaluation.statistics import ratio_of_sums, wilson

SIDES = ("general", "domain")
Records = Sequence[Mapping[str, Any]]
Score = dict[str, Any]


def score_of(answers: Sequence[bool]) -> Score | None:
    """Return the share of right answers with its 95% Wilson interval, or None without questions."""
    if not answers:
        return None
    low, high = wilson(sum(answers), len(answers))
    return {"score": sum(answers) / len(answers), "n": len(answers), "low": low, "high": high}


def share_of(records: Records, key: str) -> Score | None:
    """Return the share of the records whose `key` is true; those without a value do not count."""
    return score_of([bool(record[key]) for record in records if record.get(key) is not None])


def by_side(records: Records) -> dict[str, Score | None]:
    """Return the score of each side; None for a side without questions."""
    return {side: share_of(_of(records, side), "correct") for side in SIDES}


def written_scores(records: Records) -> dict[str, dict[str, Any]]:
    """Return per side what its written answers are like: exact, stopped by itself, F1, in the language asked in."""
    found = {}
    for side in SIDES:
        if rows := [record for record in _of(records, side) if "written" in record]:
            f1 = sum(row["f1"] for row in rows) / len(rows)
            found[side] = {
                "exact": share_of(rows, "exact"), "stopped": share_of(rows, "stopped"), "f1": f1,
                "in_language": share_of(rows, "in_language"),
            }  # fmt: skip
    return found


def by_probe(records: Records) -> dict[str, Score]:
    """Return the scores of the probes by label: questions that count in no side's score."""
    return _by(records, "probe")


def by_source(records: Records) -> dict[str, dict[str, Any]]:
    """Return the scores by source where a side has questions of several; one alone is the side's score."""
    found: dict[str, dict[str, Any]] = {}
    for side in SIDES:
        scores = _by(_of(records, side), "source")
        if len(scores) > 1:
            found |= {source: {"side": side, **score} for source, score in scores.items()}
    return found


def text_scores(documents: Records) -> dict[str, dict[str, Any]]:
    """Return per side the bits per byte of its held-out texts: value, n documents, bytes, and low to high.

    The interval is a 95% bootstrap over documents; one document alone has none.
    """
    found = {}
    for side in SIDES:
        if rows := _of(documents, side):
            value, low, high = ratio_of_sums([row["bits"] for row in rows], [row["bytes"] for row in rows])
            size = sum(row["bytes"] for row in rows)
            found[side] = {"bits_per_byte": value, "n": len(rows), "bytes": size, "low": low, "high": high}
    return found


def by_language(
    tokenizer: Any, languages: Sequence[str], records: Records, texts: Records, samples: Records
) -> dict[str, dict[str, Any]]:
    """Return per language the domain's score, written answers in it, bits per byte and tokens per character.

    `texts` are the domain's held-out texts, `samples` is the harness's log of them.
    """
    found = {}
    for code in languages:
        answers = [record for record in _of(records, "domain") if record.get("language") == code]
        own = [str(row["text"]) for row in texts if row.get("language") == code]
        read = [sample["bits_per_byte"] for sample in samples if sample["doc"].get("language") == code]
        size = sum(num_bytes for _, num_bytes in read)
        found[code] = {
            "exam": share_of(answers, "correct"),
            "in_language": share_of(answers, "in_language"),
            "bits_per_byte": -sum(likelihood for likelihood, _ in read) / size / math.log(2) if size else None,
            "tokens_per_character": fertility(tokenizer, own),
        }
    return found


def _of(records: Records, side: str) -> list[Mapping[str, Any]]:
    return [record for record in records if record["side"] == side]


def _by(records: Records, key: str) -> dict[str, Score]:
    groups: dict[str, list[bool]] = {}
    for record in records:
        if key in record:
            groups.setdefault(str(record[key]), []).append(bool(record["correct"]))
    return {name: score for name, answers in groups.items() if (score := score_of(answers))}
