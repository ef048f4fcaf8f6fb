"""Decides which checkpoints of a chain are compared.

Usage: `comparisons = compare_chain(chain)`; `find(comparisons, "base", "sft", "domain")`.

All p-values of one card are one family: Holm's adjustment runs over all of them. The comparison itself is
`common.evaluation.comparison`, the sentences are `common.report.headline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.config.kinds import Part
from common.evaluation.comparison import Comparison, adjust, compare
from common.report.chain import Chain, counterpart


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
        names = [c.name for c in chain.checkpoints if c.part == part]
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
    """Compare each checkpoint with its parent, an adapter with all weights, and the pairs of the headline, once."""
    roles = find_roles(chain)
    before_merge = chain[roles.merge].parent if roles.merge else None
    pairs: list[tuple[str | None, str | None]] = [(c.parent, c.name) for c in chain.checkpoints]
    pairs += [(roles.plain, roles.adapted)]
    pairs += [(roles.base, name) for name in (roles.adapted, roles.plain, before_merge, roles.published)]
    pairs += [(full.name, c.name) for c in chain.checkpoints if (full := counterpart(chain, c)) is not None]
    found = []
    for before, after in dict.fromkeys(pairs):
        if before in chain and after in chain and before != after:
            a, b = chain[str(before)], chain[str(after)]
            found += compare(a.name, b.name, a.records, b.records)
    return adjust(found)


def find(comparisons: Sequence[Comparison], before: str | None, after: str | None, side: str) -> Comparison | None:
    """Return the comparison of two checkpoints on one side, or None where they share no question."""
    return next((c for c in comparisons if (c.before, c.after, c.side) == (before, after, side)), None)
