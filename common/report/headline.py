"""The result of a chain in sentences that follow from its numbers, also where a stage did not help.

Usage: `lines = headline(chain, comparisons)`, one Markdown list item each.

A change is said to be one only where the paired test still shows it after Holm's adjustment; otherwise the
sentence says that the two cannot be told apart, which is not the same as being equal.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.report.chain import Chain
from common.report.comparisons import Comparison, Roles, Share, find, find_roles
from common.report.markdown import p_value, percent, points


def headline(chain: Chain, comparisons: Sequence[Comparison]) -> list[str]:
    """Return what the card's first section says, one list item per question that the pipeline can answer."""
    roles = find_roles(chain)
    items = [
        _taught(chain, comparisons, roles),
        _plain(comparisons, roles),
        _forgotten(chain, comparisons, roles),
        _preference(chain, comparisons, roles),
        _merged(chain, comparisons, roles),
        _overall(comparisons, roles),
    ]
    return [item for item in items if item]


def _taught(chain: Chain, comparisons: Sequence[Comparison], roles: Roles) -> str:
    """What continued pre-training taught, and what of it fine-tuning alone would have given."""
    change = find(comparisons, roles.base, roles.adapted, "domain")
    if change is None or roles.adapted is None:
        return ""
    how = "continued pre-training" + (" and fine-tuning" if chain[roles.adapted].part == "conversations" else "")
    text = f"**What the domain text taught.** Through {how}, the domain score {describe(change)}."
    control = find(comparisons, roles.plain, roles.adapted, "domain")
    if control is not None:
        text += f" With continued pre-training (`{control.after}`) as against without (`{control.before}`) it "
        verb = "higher" if control.difference > 0 else "lower"
        text += (
            f"is {verb}: {_scores(control)} {_evidence(control)}."
            if control.proven
            else f"is not distinguishable: {_scores(control)} {_evidence(control)}."
        )
    return text


def _plain(comparisons: Sequence[Comparison], roles: Roles) -> str:
    change = find(comparisons, roles.base, roles.plain, "domain")
    return "" if change is None else f"**Fine-tuning alone.** Without domain text, the domain score {describe(change)}."


def _forgotten(chain: Chain, comparisons: Sequence[Comparison], roles: Roles) -> str:
    """The general score from the base to the last checkpoint before a merge."""
    trained = chain[roles.merge].parent if roles.merge else roles.published
    change = find(comparisons, roles.base, trained, "general")
    if change is None:
        if any(c.score("general") for c in chain.checkpoints):
            return ""
        return "**What was forgotten.** Not measured: no general exam was part of this run."
    if not change.proven:
        return f"**What was forgotten.** No loss was shown: the general score {describe(change)}."
    lead = "What was forgotten" if change.difference < 0 else "Nothing was forgotten"
    return f"**{lead}.** The general score {describe(change)}."


def _preference(chain: Chain, comparisons: Sequence[Comparison], roles: Roles) -> str:
    if roles.aligned is None:
        return ""
    sides = _both_sides(comparisons, chain[roles.aligned].parent, roles.aligned)
    text = f"**What preference tuning changed.** {sides}" if sides else ""
    accuracy = chain[roles.aligned].manifest.get("metrics", {}).get("preference_accuracy")
    if accuracy:
        share = Share(accuracy["score"], accuracy["low"], accuracy["high"])
        text = text or "**What preference tuning changed.**"
        text += f" It ranks the preferred answer first in {_share(share)} of {accuracy['n']:,} held-out pairs."
    return text


def _merged(chain: Chain, comparisons: Sequence[Comparison], roles: Roles) -> str:
    """What the merge bought back in general, and what it cost in the domain."""
    if roles.merge is None:
        return ""
    parent = chain[roles.merge].parent
    back = find(comparisons, parent, roles.merge, "general")
    sides = _both_sides(comparisons, parent, roles.merge)
    if not sides:
        return ""
    if back is None:
        return f"**What the merge changed.** {sides}"
    if back.proven:
        lead = "What the merge bought back" if back.difference > 0 else "What the merge cost"
        return f"**{lead}.** {sides}"
    return f"**What the merge bought back.** Nothing that the exam can show. {sides}"


def _overall(comparisons: Sequence[Comparison], roles: Roles) -> str:
    """The published model against the base, where no other item has said it."""
    if roles.published in (roles.adapted, roles.plain):
        return ""
    sides = _both_sides(comparisons, roles.base, roles.published)
    return f"**All in all**, from `{roles.base}` to `{roles.published}`: {sides[0].lower()}{sides[1:]}" if sides else ""


def _both_sides(comparisons: Sequence[Comparison], before: str | None, after: str | None) -> str:
    parts = []
    for side in ("domain", "general"):
        change = find(comparisons, before, after, side)
        if change is not None:
            parts.append(f"the {side} score {describe(change)}")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""


def describe(change: Comparison) -> str:
    """Return the predicate of `the … score …`: what happened, both scores with intervals, and the evidence."""
    if change.proven:
        verb = "rose" if change.difference > 0 else "fell"
        return f"{verb} from {_named(change)} {_evidence(change)}"
    same = "did not change" if change.difference == 0 else "is not distinguishable from before"
    return f"{same}: {_named(change)} {_evidence(change)}"


def _named(change: Comparison) -> str:
    return (
        f"{_share(change.score_before)} (`{change.before}`) to {_share(change.score_after)} (`{change.after}`)"
        if change.proven
        else f"{_share(change.score_before)} (`{change.before}`), {_share(change.score_after)} (`{change.after}`)"
    )


def _scores(change: Comparison) -> str:
    return f"{_share(change.score_after)} against {_share(change.score_before)}"


def _share(share: Share) -> str:
    return f"{percent(share.score)} [{percent(share.low)}, {percent(share.high)}]"


def _evidence(change: Comparison) -> str:
    """Return the difference with its interval and both p-values; one is enough where both are tiny."""
    adjusted = p_value(change.p_holm).removeprefix("p ").removeprefix("= ")
    p = p_value(change.p) if p_value(change.p) == p_value(change.p_holm) else f"{p_value(change.p)}, Holm {adjusted}"
    return f"({points(change.difference)} points [{points(change.low)}, {points(change.high)}], McNemar {p})"
