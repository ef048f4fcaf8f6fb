"""What the card says of long inputs: what stages made of RoPE, and how far each model reads, with a figure.

Usage: `parts += long_context_notes(chain)`; nothing where no stage and no exam is about them.

It prints what manifests and exams say. What is measured is `common.evaluation.long_context`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.report.chain import SIDES, Chain, Checkpoint
from common.report.markdown import MISSING, code, interval, number, percent, table

PICTURE = "long_context.png"
NEEDLE_NOTE = (
    "Needle test: a pass key stands in filler text, and a model is right where of {choices} keys that one has gained "
    "most likelihood by the text; chance is {chance}. Scores are over all depths, with 95% Wilson intervals; the "
    "figure has each depth. It says whether a model finds a word, not whether it understands a long text."
)
CURVE_NOTE = (
    "Bits per byte by position: held-out texts are joined and cut into windows of {length} tokens, and each token is "
    "predicted from all before it in its window."
)


def measured(chain: Chain) -> list[Checkpoint]:
    """Return the checkpoints whose exams measured long inputs."""
    return [checkpoint for checkpoint in chain.checkpoints if checkpoint.exam.get("long_context")]


def long_context_notes(chain: Chain) -> list[str]:
    """Return notes, tables and the figure, below one heading."""
    notes = [
        _rope_note(checkpoint.name, checkpoint.metrics["rope"])
        for checkpoint in chain.checkpoints
        if checkpoint.metrics.get("rope")
    ]
    if found := measured(chain):
        facts = found[0].exam["long_context"]
        choices = facts["choices"]
        notes += [
            NEEDLE_NOTE.format(choices=choices, chance=percent(1 / choices)), _needle_table(found),
            _curve_note(found, facts["length"]), _curve_table(found),
            f"![Long inputs: needle test, and bits per byte by position]({PICTURE})",
        ]  # fmt: skip
    return ["### Long inputs", *filter(None, notes)] if notes else []


def _rope_note(name: str, facts: Mapping[str, Any]) -> str:
    before = facts["base_before"]
    was = "the base of its architecture" if before is None else f"{before:,.0f}"
    text = f"`{name}` changed the base of the rotary position embeddings from {was} to {facts['base']:,.0f}"
    if before == facts["base"]:
        text = f"`{name}` left the base of the rotary position embeddings at {was}"
    if facts["context"] != facts["context_before"]:
        text += f". The context grew from {number(facts['context_before'])} to {number(facts['context'])} tokens"
    text += "." if before == facts["base"] else " (Llama 2 Long, arXiv 2309.16039, section 2.1)."
    if facts.get("beyond") is not None and facts["context"] != facts["context_before"]:
        text += f" {percent(facts['beyond'])} of the positions that it trained on are beyond the context before."
    return text


def _needle_table(found: list[Checkpoint]) -> str:
    if not (lengths := lengths_of(found)):
        return ""
    columns = {
        f"{length:,} tokens [95%]": lambda one, length=length: interval(of_length(one, length)) for length in lengths
    }
    return table(found, {"Model": lambda one: code(one.name), **columns})


def lengths_of(found: list[Checkpoint]) -> list[int]:
    """Return the lengths of the needle test, the shortest first."""
    return sorted({cell["length"] for one in found for cell in one.exam["long_context"]["needle"]})


def of_length(checkpoint: Checkpoint, length: int) -> Mapping[str, Any] | None:
    """Return the score of a length over all depths; None where it was not asked."""
    cells = checkpoint.exam["long_context"]["needle"]
    return next((cell for cell in cells if cell["length"] == length and cell["depth"] is None), None)


def reach(found: list[Checkpoint], side: str) -> int:
    """Return the tokens of the longest window of a side's texts; 0 without any."""
    curves = (one.exam["long_context"]["positions"].get(side) or [] for one in found)
    return max((bucket["last"] + 1 for curve in curves for bucket in curve), default=0)


def has_intervals(found: list[Checkpoint], side: str) -> bool:
    """Whether a side's curves have intervals: one window says nothing of how windows differ."""
    curves = (one.exam["long_context"]["positions"].get(side) or [] for one in found)
    return any(bucket["low"] is not None for curve in curves for bucket in curve)


def _curve_note(found: list[Checkpoint], length: int) -> str:
    """Say how the curves are made, and which texts are shorter than a window."""
    sides = [side for side in SIDES if reach(found, side)]
    short = [f"{reach(found, side):,} tokens ({side} text)" for side in sides if reach(found, side) < length]
    text = CURVE_NOTE.format(length=f"{length:,}")
    if short:
        which = "Not all texts fill one" if len(short) < len(sides) else "No window is as long as that"
        text += f" {which}: the longest has {' and '.join(short)}."
    if any(has_intervals(found, side) for side in sides):
        text += " Intervals are from a bootstrap over the windows."
    return text


def _curve_table(found: list[Checkpoint]) -> str:
    """One row for each side and model, one column for each bucket of positions."""
    curves = [
        (one.name, side, {(bucket["first"], bucket["last"]): bucket for bucket in curve})
        for side in SIDES
        for one in found
        if (curve := one.exam["long_context"]["positions"].get(side))
    ]
    places = sorted({place for _, _, curve in curves for place in curve})
    columns = {
        f"{first:,} to {last:,}": lambda row, place=(first, last): _bits(row[2].get(place)) for first, last in places
    }
    return table(curves, {"Model": lambda row: code(row[0]), "Held-out text": lambda row: row[1], **columns}, text=2)


def _bits(bucket: Mapping[str, Any] | None) -> str:
    if bucket is None:
        return MISSING
    value = f"{bucket['bits_per_byte']:.3f}"
    return value if bucket["low"] is None else f"{value} [{bucket['low']:.3f}, {bucket['high']:.3f}]"
