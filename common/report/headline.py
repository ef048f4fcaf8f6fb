"""The results of a chain in sentences that follow from its numbers, also where a stage did not help.

Usage: `lines = headline(chain, comparisons)`, one Markdown list item each.

A change is called one only if the paired test is significant after Holm's adjustment. "Did not change significantly"
does not mean that two models are equal.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.evaluation.comparison import Comparison
from common.report.chain import Chain
from common.report.comparisons import Roles, find, find_roles
from common.report.markdown import interval, p_value, points


def headline(chain: Chain, comparisons: Sequence[Comparison]) -> list[str]:
    """Return the list items of the card's first section, one per question that the pipeline can answer."""
    roles = find_roles(chain)
    items = [
        _domain(chain, comparisons, roles),
        _plain(comparisons, roles),
        _forgetting(chain, comparisons, roles),
        _preference(chain, comparisons, roles),
        _merge(chain, comparisons, roles),
        _overall(comparisons, roles),
    ]
    return [item for item in items if item]


def _domain(chain: Chain, comparisons: Sequence[Comparison], roles: Roles) -> str:
    """What continued pre-training changed, and how it compares with fine-tuning alone."""
    change = find(comparisons, roles.base, roles.adapted, "domain")
    if change is None or roles.adapted is None:
        return ""
    how = "continued pre-training" + (" and fine-tuning" if chain[roles.adapted].part == "conversations" else "")
    text = f"**Effect of the domain text.** After {how}, the domain score {describe(change)}."
    control = find(comparisons, roles.plain, roles.adapted, "domain")
    if control is None:
        return text
    verb = "is not significantly different from"
    if control.proven:
        verb = "is higher than with" if control.difference > 0 else "is lower than with"
    scores = f"{interval(control.score_after)} against {interval(control.score_before)}"
    return (
        f"{text} With continued pre-training (`{control.after}`), the score {verb} fine-tuning alone "
        f"(`{control.before}`): {scores} {_evidence(control)}."
    )


def _plain(comparisons: Sequence[Comparison], roles: Roles) -> str:
    change = find(comparisons, roles.base, roles.plain, "domain")
    return "" if change is None else f"**Fine-tuning alone.** Without domain text, the domain score {describe(change)}."


def _forgetting(chain: Chain, comparisons: Sequence[Comparison], roles: Roles) -> str:
    """The general score from the base to the last checkpoint before a merge."""
    trained = chain[roles.merge].parent if roles.merge else roles.published
    change = find(comparisons, roles.base, trained, "general")
    if change is None:
        measured = any(c.score("general") for c in chain.checkpoints)
        return "" if measured else "**Forgetting.** Not measured: this run had no general exam."
    lead = "No forgetting" if change.proven and change.difference > 0 else "Forgetting"
    note = "" if change.proven else "No loss was found. "
    return f"**{lead}.** {note}The general score {describe(change)}."


def _preference(chain: Chain, comparisons: Sequence[Comparison], roles: Roles) -> str:
    if roles.aligned is None:
        return ""
    parts = [_both_sides(comparisons, chain[roles.aligned].parent, roles.aligned)]
    if accuracy := chain[roles.aligned].metrics.get("preference_accuracy"):
        share = f"{interval(accuracy)} of {accuracy['n']:,} held-out pairs"
        parts.append(f"`{roles.aligned}` ranks the preferred answer first in {share}.")
    text = " ".join(filter(None, parts))
    return f"**Effect of preference tuning.** {text}" if text else ""


def _merge(chain: Chain, comparisons: Sequence[Comparison], roles: Roles) -> str:
    """What the merge restored in general, and what it cost in the domain."""
    parent = chain[roles.merge].parent if roles.merge else None
    general = find(comparisons, parent, roles.merge, "general")
    lead = "Effect of the merge"
    if general is not None and general.proven:
        lead = "The merge restored general ability" if general.difference > 0 else "The merge cost general ability"
    text = _both_sides(comparisons, parent, roles.merge)
    return f"**{lead}.** {text}" if text else ""


def _overall(comparisons: Sequence[Comparison], roles: Roles) -> str:
    """The published model against the base, where no other item has said it."""
    if roles.published in (roles.adapted, roles.plain):
        return ""
    text = _both_sides(comparisons, roles.base, roles.published)
    return f"**Overall, from `{roles.base}` to `{roles.published}`.** {text}" if text else ""


def _both_sides(comparisons: Sequence[Comparison], before: str | None, after: str | None) -> str:
    changes = ((side, find(comparisons, before, after, side)) for side in ("domain", "general"))
    return " ".join(f"The {side} score {describe(change)}." for side, change in changes if change is not None)


def describe(change: Comparison) -> str:
    """Return the predicate of `the … score …`: what happened, both scores with intervals, and the evidence."""
    before = f"{interval(change.score_before)} (`{change.before}`)"
    after = f"{interval(change.score_after)} (`{change.after}`)"
    if change.proven:
        return f"{'rose' if change.difference > 0 else 'fell'} from {before} to {after} {_evidence(change)}"
    verb = "did not change" if change.difference == 0 else "did not change significantly"
    return f"{verb}: {before}, {after} {_evidence(change)}"


def _evidence(change: Comparison) -> str:
    """Return the difference with its interval and both p-values; one is enough where they read the same."""
    p, adjusted = p_value(change.p), p_value(change.p_holm)
    sign = "" if p.startswith("<") else "= "
    text = f"p {sign}{p}" + ("" if p == adjusted else f", Holm {adjusted}")
    return f"({points(change.difference)} points [{points(change.low)}, {points(change.high)}], McNemar {text})"
