"""The results of a chain in sentences that follow from its numbers, also where a stage did not help.

Usage: `lines = headline(chain, comparisons, texts)`, one Markdown list item each.

Where the exam shows no change, the bits per byte of held-out texts follow, as they show smaller ones. A change of
the score is called one only if the paired test is significant after Holm's adjustment, one of the bits per byte if its
interval excludes 0. "Did not change significantly" does not mean that two models are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.evaluation.comparison import Comparison, TextComparison
from common.report import sequence
from common.report.chain import Chain
from common.report.comparisons import Roles, find, find_roles
from common.report.markdown import change_interval, interval, p_value, points_range, shows_no_change
from common.report.stage_notes import preference_claim

TOO_FEW = "The score fell, but on these questions that may be chance. "


@dataclass(frozen=True)
class Evidence:
    """What checkpoints answered and read, compared; sentences about two of them."""

    scores: Sequence[Comparison]
    texts: Sequence[TextComparison]

    def of(self, before: str | None, after: str | None, side: str) -> list[str]:
        """Return clauses on one side: the score, and the bits per byte where the score shows no change."""
        score, text = find(self.scores, before, after, side), find(self.texts, before, after, side)
        clauses = [] if score is None else [f"the {side} score {describe(score)}"]
        if text is not None and (score is None or not score.proven):
            clauses.append(f"the bits per byte of {side} text {describe_text(text)}")
        return clauses

    def both_sides(self, before: str | None, after: str | None) -> str:
        return _sentences([*self.of(before, after, "domain"), *self.of(before, after, "general")])


def _sentences(clauses: Sequence[str], lead: str = "") -> str:
    """Return clauses as sentences, the first behind a lead."""
    said = [f"{lead}{clauses[0]}", *clauses[1:]] if clauses else []
    return " ".join(f"{clause[0].upper()}{clause[1:]}." for clause in said)


def headline(chain: Chain, comparisons: Sequence[Comparison], texts: Sequence[TextComparison] = ()) -> list[str]:
    """Return the list items of the card's first section, one per question that the pipeline can answer."""
    roles, found = find_roles(chain), Evidence(comparisons, texts)
    items = [
        _domain(chain, found, roles),
        _plain(found, roles),
        _forgetting(chain, found, roles),
        _preference(chain, found, roles),
        _merge(chain, found, roles),
        _overall(found, roles),
    ]
    return [*(item for item in items if item), *sequence.headline(chain)]


def _domain(chain: Chain, found: Evidence, roles: Roles) -> str:
    """What continued pre-training changed, and how it compares with fine-tuning alone."""
    changes = found.of(roles.base, roles.adapted, "domain")
    if not changes or roles.adapted is None:
        return ""
    how = "continued pre-training" + (" and fine-tuning" if chain[roles.adapted].part == "conversations" else "")
    text = f"**Effect of the domain text.** {_sentences(changes, f'After {how}, ')}"
    control = find(found.scores, roles.plain, roles.adapted, "domain")
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


def _plain(found: Evidence, roles: Roles) -> str:
    changes = found.of(roles.base, roles.plain, "domain")
    return f"**Fine-tuning alone.** {_sentences(changes, 'Without domain text, ')}" if changes else ""


def _forgetting(chain: Chain, found: Evidence, roles: Roles) -> str:
    """The general score from the base to the last checkpoint before a merge."""
    trained = chain[roles.merge].parent if roles.merge else roles.published
    changes, change = found.of(roles.base, trained, "general"), find(found.scores, roles.base, trained, "general")
    if change is None:
        measured = any(c.score("general") for c in chain.checkpoints)
        none = "" if measured or trained == roles.base else "Not measured by an exam: this run had no general one."
        said = " ".join(filter(None, [none, _sentences(changes)]))
        return f"**Forgetting.** {said}" if said else ""
    lead = "No forgetting" if change.proven and change.difference > 0 else "Forgetting"
    note = "" if change.proven else "The exam shows no loss. " if change.difference >= 0 else TOO_FEW
    return f"**{lead}.** {note}{_sentences(changes)}"


def _preference(chain: Chain, found: Evidence, roles: Roles) -> str:
    if roles.aligned is None:
        return ""
    parts = [found.both_sides(chain[roles.aligned].parent, roles.aligned)]
    if accuracy := chain[roles.aligned].metrics.get("preference_accuracy"):
        parts.append(preference_claim(roles.aligned, accuracy))
    text = " ".join(filter(None, parts))
    return f"**Effect of preference tuning.** {text}" if text else ""


def _merge(chain: Chain, found: Evidence, roles: Roles) -> str:
    """What the merge restored in general, and what it cost in the domain."""
    parent = chain[roles.merge].parent if roles.merge else None
    general = find(found.scores, parent, roles.merge, "general")
    lead = "Effect of the merge"
    if general is not None and general.proven:
        lead = "The merge restored general ability" if general.difference > 0 else "The merge cost general ability"
    text = found.both_sides(parent, roles.merge)
    return f"**{lead}.** {text}" if text else ""


def _overall(found: Evidence, roles: Roles) -> str:
    """The published model against the base, where no other item has said it."""
    if roles.published in (roles.adapted, roles.plain):
        return ""
    text = found.both_sides(roles.base, roles.published)
    return f"**Overall, from `{roles.base}` to `{roles.published}`.** {text}" if text else ""


def describe_text(change: TextComparison) -> str:
    """Return the predicate of `the bits per byte …`, with the relative change and its interval."""
    values = f"{change.bits_before:.3f} (`{change.before}`), {change.bits_after:.3f} (`{change.after}`)"
    size = change_interval(change.change, change.low, change.high)
    if change.low is None:
        return f"went {values} ({size}, one document)"
    if shows_no_change(change.change, change.low, change.high):
        verb = "did not change"
    else:
        verb = ("fell" if change.change < 0 else "rose") if change.proven else "did not change significantly"
    return f"{verb}: {values} ({size} over {change.n:,} documents; lower is better)"


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
    return f"({points_range(change.difference, change.low, change.high, ' points')}, McNemar {text})"
