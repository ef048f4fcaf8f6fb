"""Which checkpoints of a chain are compared, and what the paired answers say about each pair.

Usage: `comparisons = compare_chain(chain)`; `find(comparisons, "base", "sft", "domain")`.

Every p-value of one card belongs to one family: Holm's adjustment runs over all of them. The statistics
themselves are `common.evaluation.statistics`, the words are `common.report.headline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from common.config.kinds import Part
from common.evaluation.statistics import holm, mcnemar_exact, paired_bootstrap, wilson
from common.report.chain import SIDES, Chain, Checkpoint, counterpart

LEVEL = 0.05


@dataclass(frozen=True)
class Share:
    """A share of right answers with its 95% interval."""

    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """One side of the exam, the same questions answered by two checkpoints."""

    before: str
    after: str
    side: str
    n: int  # questions that both answered
    gained: int  # wrong before, right after
    lost: int
    score_before: Share
    score_after: Share
    difference: float
    low: float
    high: float
    p: float
    p_holm: float

    @property
    def proven(self) -> bool:
        """Whether the two can be told apart after Holm's adjustment over the whole card."""
        return self.p_holm < LEVEL

    def record(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {**asdict(self), "proven": self.proven}


@dataclass(frozen=True)
class Roles:
    """The checkpoints that the headline talks about; None where the pipeline has none of that kind."""

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
    pairs: list[tuple[str | None, str | None]] = [(c.parent, c.name) for c in chain.checkpoints]
    before_merge = chain[roles.merge].parent if roles.merge else None
    pairs += [(roles.plain, roles.adapted)]
    pairs += [(roles.base, name) for name in (roles.adapted, roles.plain, before_merge, roles.published)]
    pairs += [(full.name, c.name) for c in chain.checkpoints if (full := counterpart(chain, c)) is not None]
    compared = []
    for before, after in dict.fromkeys(pairs):
        if before in chain and after in chain and before != after:
            for side in SIDES:
                compared += _compare(chain[str(before)], chain[str(after)], side)
    adjusted = holm({str(index): c.p for index, c in enumerate(compared)})
    return [replace(c, p_holm=adjusted[str(index)]) for index, c in enumerate(compared)]


def find(comparisons: Sequence[Comparison], before: str | None, after: str | None, side: str) -> Comparison | None:
    """Return the comparison of two checkpoints on one side, or None where it could not be made."""
    for comparison in comparisons:
        if (comparison.before, comparison.after, comparison.side) == (before, after, side):
            return comparison
    return None


def _compare(before: Checkpoint, after: Checkpoint, side: str) -> list[Comparison]:
    """Pair the answers of the exam itself; benchmarks from the Hub have no side of their own."""
    keys = [key for key in before.records if key[0] == side and key in after.records]
    if not keys:
        return []
    a = [bool(before.records[key]["correct"]) for key in keys]
    b = [bool(after.records[key]["correct"]) for key in keys]
    difference, low, high = paired_bootstrap(a, b)
    p = mcnemar_exact(a, b)
    return [
        Comparison(
            before=before.name,
            after=after.name,
            side=side,
            n=len(keys),
            gained=sum(y and not x for x, y in zip(a, b, strict=True)),
            lost=sum(x and not y for x, y in zip(a, b, strict=True)),
            score_before=_share(a),
            score_after=_share(b),
            difference=difference,
            low=low,
            high=high,
            p=p,
            p_holm=p,
        )
    ]


def _share(answers: list[bool]) -> Share:
    low, high = wilson(sum(answers), len(answers))
    return Share(sum(answers) / len(answers), low, high)
