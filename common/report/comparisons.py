"""Decides which checkpoints of a chain are compared.

Usage: `comparisons = compare_chain(chain)`; `find(comparisons, "base", "sft", "domain")`; the same pairs by bits
per byte are `compare_chain_texts(chain)`.

All p-values of one card are one family: Holm's adjustment runs over all of them. The comparison itself is
`common.evaluation.comparison`, the sentences are `common.report.headline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from common.config.kinds import Part
from common.evaluation.comparison import Comparison, TextComparison, adjust, compare, compare_texts
from common.report.chain import SIDES, Chain, Checkpoint, counterpart
from common.report.markdown import points_range

Found = TypeVar("Found", Comparison, TextComparison)


@dataclass(frozen=True)
class Roles:
    """The checkpoints in the headline; None where the pipeline has none of that kind."""

    base: str
    adapted: str | None  # fine-tuned after continued pre-training; the continued pre-training alone where none is
    plain: str | None  # fine-tuned without continued pre-training
    aligned: str | None  # tuned on preferences or rewards
    merge: str | None
    published: str


def find_roles(chain: Chain) -> Roles:
    """Find the checkpoints of the headline by kind and ancestry, whatever they are called."""

    def last(part: Part, after_text: bool | None = None) -> str | None:
        # A control arm of an adapted model is not the adapted model; fine-tuning alone always is one.
        names = [c.name for c in chain.checkpoints if c.part == part and (after_text is False or not c.control)]
        if after_text is not None:
            names = [n for n in names if any(c.part == "text" for c in chain.ancestors(n)) is after_text]
        return names[-1] if names else None

    return Roles(
        base=chain.checkpoints[0].name,
        adapted=last("conversations", after_text=True) or last("text"),
        plain=last("conversations", after_text=False),
        aligned=last("alignment"),
        merge=last("merge"),
        published=chain.published,
    )


def compare_chain(chain: Chain) -> list[Comparison]:
    """Compare the pairs of a chain by their answers; p-values are adjusted over all of them."""
    return adjust([c for a, b in _pairs(chain) for c in compare(a.name, b.name, a.records, b.records)])


def compare_chain_texts(chain: Chain) -> list[TextComparison]:
    """Compare the same pairs by the bits per byte of held-out texts."""
    return [c for a, b in _pairs(chain) for c in compare_texts(a.name, b.name, a.texts, b.texts)]


def _pairs(chain: Chain) -> list[tuple[Checkpoint, Checkpoint]]:
    """Return which checkpoints are compared, each pair once.

    Each with its parent, the pairs of the headline, an adapter with all weights, a control arm with what was made from
    the same parent in the same way, and in a sequence of domains each merge with the published model.
    """
    roles = find_roles(chain)
    before_merge = chain[roles.merge].parent if roles.merge else None
    pairs: list[tuple[str | None, str | None]] = [(c.parent, c.name) for c in chain.checkpoints]
    pairs += [(roles.plain, roles.adapted)]
    pairs += [(roles.base, name) for name in (roles.adapted, roles.plain, before_merge, roles.published)]
    pairs += [(full.name, c.name) for c in chain.checkpoints if (full := counterpart(chain, c)) is not None]
    pairs += [
        (control.name, c.name)
        for control in chain.checkpoints
        for c in chain.checkpoints
        if control.control and not c.control and (c.kind, c.parent) == (control.kind, control.parent)
        and (c.name, control.name) not in pairs
    ]  # fmt: skip
    if chain.domains:  # specialists of single domains, merged, against the chain that read one after the other
        pairs += [(c.name, roles.published) for c in chain.checkpoints if c.part == "merge"]
    return [
        (chain[str(before)], chain[str(after)])
        for before, after in dict.fromkeys(pairs)
        if before in chain and after in chain and before != after
    ]


def exam_changes(comparisons: Sequence[Comparison], before: str | None, after: str) -> list[str]:
    """Return what changed in the exam from one checkpoint to another, a phrase for each side that both were asked."""
    found = (find(comparisons, before, after, side) for side in SIDES)
    return [f"{points_range(c.difference, c.low, c.high, ' points')} in the {c.side} exam" for c in found if c]


def find(comparisons: Sequence[Found], before: str | None, after: str | None, side: str) -> Found | None:
    """Return the comparison of two checkpoints on one side, or None where they share no question or document."""
    return next((c for c in comparisons if (c.before, c.after, c.side) == (before, after, side)), None)
