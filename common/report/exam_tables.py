"""The tables of the model card on its results: exams, held-out texts and their paired comparisons.

Usage: `results_table(chain)` and the other functions return Markdown; `common.report.card` puts them in order.

They print what exams and comparisons say and compute nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.evaluation.comparison import Comparison, TextComparison
from common.report.chain import Chain, Checkpoint
from common.report.markdown import (
    bits_range,
    change_interval,
    code,
    duration,
    interval,
    number,
    p_value,
    percent,
    plain,
    points_range,
    table,
)

WRITTEN_NOTE = (
    "Answers are generated greedily. Exact: equal to an accepted answer, compared as a number, or as words without "
    "case, punctuation and articles. Stopped: ended by themselves. F1: overlap of words with the accepted answer."
)
LANGUAGE_NOTE = (
    "For the domain's questions and held-out texts. Same language: share of written answers in the language of their "
    "question. Tokens per character: the tokenizer's fertility in the language. Twice as many tokens cost twice as "
    "much and fill the context twice as fast."
)
PROBE_NOTE = "Probe questions do not count in any score above."


def results_table(chain: Chain) -> str:
    """The chain, one row per checkpoint."""
    return table(
        chain.checkpoints,
        {
            "Model": lambda c: _name(chain, c),
            "Continues from": lambda c: code(c.parent),
            "General score [95%]": lambda c: interval(c.score("general")),
            "Domain score [95%]": lambda c: interval(c.score("domain")),
            "Bits per byte general [95%]": lambda c: bits_range(c.bits("general"), c.text_score("general")),
            "Bits per byte domain [95%]": lambda c: bits_range(c.bits("domain"), c.text_score("domain")),
            "Tokens": lambda c: number(c.manifest.get("tokens")),
            "Wall time": lambda c: duration(c.manifest.get("seconds")),
            "Tokens/s": lambda c: number(c.manifest.get("tokens_per_second")),
        },
        text=2,
    )


def text_comparison_table(comparisons: Sequence[TextComparison]) -> str:
    """Every paired comparison by the bits per byte of held-out texts."""
    return table(
        comparisons,
        {
            "Before": lambda c: code(c.before),
            "After": lambda c: code(c.after),
            "Held-out text": lambda c: c.side,
            "Documents": lambda c: number(c.n),
            "Bits per byte before": lambda c: number(c.bits_before, 3),
            "Bits per byte after": lambda c: number(c.bits_after, 3),
            "Change [95%]": lambda c: change_interval(c.change, c.low, c.high),
        },
        text=3,
    )


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Every paired comparison of the card."""
    return table(
        comparisons,
        {
            "Before": lambda c: code(c.before),
            "After": lambda c: code(c.after),
            "Exam": lambda c: c.side,
            "Questions": lambda c: number(c.n),
            "Gained": lambda c: str(c.gained),
            "Lost": lambda c: str(c.lost),
            "Difference, points [95%]": lambda c: points_range(c.difference, c.low, c.high),
            "McNemar p": lambda c: p_value(c.p),
            "Holm p": lambda c: p_value(c.p_holm),
        },
        text=3,
    )


def exam_details(chain: Chain) -> list[str]:
    """Return headings, notes and tables for every detail that at least one exam has."""

    def rows_of(part: str) -> list[tuple[Checkpoint, str, Any]]:
        return [(c, name, facts) for c in chain.checkpoints for name, facts in (c.exam.get(part) or {}).items()]

    further = [(c, task, metric, value) for c, task, metrics in rows_of("extra") for metric, value in metrics.items()]
    sections = (
        ("Written answers", WRITTEN_NOTE, table(rows_of("written"), {
            "Model": lambda row: _name(chain, row[0]),
            "Exam": lambda row: plain(row[1]),
            "Exact [95%]": lambda row: interval(row[2]["exact"]),
            "Stopped [95%]": lambda row: interval(row[2]["stopped"]),
            "F1": lambda row: percent(row[2]["f1"]),
            "Same language [95%]": lambda row: interval(row[2].get("in_language")),
        }, text=2)),
        ("By language", LANGUAGE_NOTE, table(rows_of("languages"), {
            "Model": lambda row: _name(chain, row[0]),
            "Language": lambda row: plain(row[1]),
            "Domain score [95%]": lambda row: interval(row[2].get("exam")),
            "Same language [95%]": lambda row: interval(row[2].get("in_language")),
            "Bits per byte": lambda row: number(row[2].get("bits_per_byte"), 3),
            "Tokens per character": lambda row: number(row[2].get("tokens_per_character"), 3),
        }, text=2)),
        ("Probes", PROBE_NOTE, _columns_table(chain, "probes")),
        ("By source", "", _columns_table(chain, "sources")),
        ("Further benchmarks", "", table(further, {
            "Model": lambda row: _name(chain, row[0]),
            "Benchmark": lambda row: plain(row[1]),
            "Metric": lambda row: plain(row[2]),
            "Value": lambda row: f"{float(row[3]):.4f}",
        }, text=3)),
    )  # fmt: skip
    found = [part for title, note, body in sections if body for part in (f"### {title}", note, body) if part]
    missing = dict.fromkeys(name for c in chain.checkpoints for name in c.exam.get("left_out") or ())
    if missing:
        names = ", ".join(map(code, missing))
        found.append(f"Benchmarks left out, as their data sets could not be loaded when the exam was held: {names}.")
    return found


def _columns_table(chain: Chain, part: str) -> str:
    """One column per probe or source, one row per checkpoint."""
    found = {name: facts["n"] for c in chain.checkpoints for name, facts in (c.exam.get(part) or {}).items()}
    columns = {
        f"{plain(name)} (n = {n})": lambda c, name=name: interval((c.exam.get(part) or {}).get(name))
        for name, n in found.items()
    }
    return table(chain.checkpoints, {"Model": lambda c: _name(chain, c), **columns}) if found else ""


def _name(chain: Chain, checkpoint: Checkpoint) -> str:
    return f"**`{checkpoint.name}`**" if checkpoint.name == chain.published else f"`{checkpoint.name}`"
