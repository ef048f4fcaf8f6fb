"""What the card says of stages that make weights zero, and of those that keep the zeros: how many, against dense.

Usage: `parts += sparsity_notes(chain)`; none where a chain has no such stage.

It prints what manifests and exams say. Whether anything computes faster with the zeros is not measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from common.report.chain import SIDES, Chain, Checkpoint
from common.report.markdown import MISSING, code, number, percent, table

NOTE = (
    "Of each 4 neighbours in a row of these matrices at most 2 are not zero, which was checked on the saved files. Cut "
    "is the share of the squared norm that the last cut took. Dense is the stage before, or the stage of the same kind "
    "behind it. Files are as large as those of dense models, and computing takes as long, unless a library with "
    "kernels for 2:4 sparse matrices packs them for its GPU. That has not been tried here."
)


def sparsity_notes(chain: Chain) -> list[str]:
    """Return which matrices were cut, and a table of sparse checkpoints against dense ones."""
    found = [one for one in chain.checkpoints if one.metrics.get("sparsity") or one.metrics.get("kept_zeros")]
    if not found:
        return []
    made = [_sentence(one.name, one.metrics["sparsity"]) for one in found if one.metrics.get("sparsity")]
    itself, twins = {one.name: one for one in found}, {one.name: dense(chain, one) for one in found}
    columns = {
        "Stage": lambda one: code(one.name),
        "Dense": lambda one: code(twin.name) if (twin := twins[one.name]) is not None else MISSING,
        "Zeros": lambda one: number(_zeros(one)),
        **{
            f"{what} {side}{of}": _column(read, which, side)
            for what, read in (("Exam", _score), ("Bits per byte", Checkpoint.bits))
            for of, which in ((", dense", twins), ("", itself))
            for side in SIDES
        },
    }
    return ["### Sparsity", *made, table(found, columns, text=2), NOTE]


def dense(chain: Chain, one: Checkpoint) -> Checkpoint | None:
    """Return the dense checkpoint that a sparse one is held beside, where the chain has it."""
    parent = chain[one.parent] if one.parent and one.parent in chain else None
    if parent is None or one.metrics.get("sparsity"):
        return parent
    twin = dense(chain, parent)
    return next(
        (
            other
            for other in chain.checkpoints
            if twin is not None and other.parent == twin.name and other.kind == one.kind and not _zeros(other)
        ),
        None,
    )


def _zeros(one: Checkpoint) -> int:
    facts = one.metrics.get("sparsity") or {}
    return int(facts.get("zeros") or one.metrics.get("kept_zeros") or 0)


def _sentence(name: str, facts: Mapping[str, Any]) -> str:
    return (
        f"`{name}` made {number(facts['zeros'])} of {number(facts['parameters'])} weights zero "
        f"({percent(facts['zeros'] / facts['parameters'])}), half of those of {len(facts['matrices'])} matrices "
        f"({', '.join(code(module) for module in facts['modules'])}). Cut: {facts['cut']:.2%}."
    )


def _score(one: Checkpoint, side: str) -> float | None:
    score = one.score(side)
    return None if score is None else float(score["score"])


def _column(
    read: Callable[[Checkpoint, str], float | None], which: Mapping[str, Checkpoint | None], side: str
) -> Callable[[Checkpoint], str]:
    """Return what is shown of one side of the checkpoint that stands for another by its name."""

    def shown(one: Checkpoint) -> str:
        chosen = which[one.name]
        value = None if chosen is None else read(chosen, side)
        return MISSING if value is None else f"{value:.3f}"

    return shown
