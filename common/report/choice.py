"""Which checkpoint is published: the one that the pipeline names, or the best before it where that one lost too much.

Usage: `choice = choose(chain, settings.choose, gate.max_general_drop)`; `choice.published`, `choice.sentence`.

The rule, over the named stage and those that it continues from, without the start of the chain (and, where the named
one has learned conversations, without those that have not; without those that only stages of ours load):
1. Out is what lost more of the general score than `gate.max_general_drop`.
2. Best is the highest domain score; of those that a paired 95% interval cannot tell from it, the lowest bits per byte
   of domain text; of those that an interval cannot tell from that, the latest stage.
3. The named stage lost too much where, against the best, it gave back more than half of what the best gained over the
   start, and the interval of that difference excludes 0. The domain score decides where it shows the gain of the best,
   else the bits per byte.
4. Then `publish.choose=best` publishes the best. Anything else publishes the named stage, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from common.config.growth import CONTROL_LLM
from common.config.kinds import kind_of
from common.evaluation.comparison import Comparison, TextComparison, compare, compare_texts
from common.report.chain import Chain, Checkpoint
from common.report.comparisons import find
from common.report.markdown import change_interval, number, percent, points_range

TOO_MUCH = 0.5  # share of the gain


@dataclass(frozen=True)
class Choice:
    """The stage that is published, and what that costs against the best one."""

    named: str
    best: str
    published: str
    lost: float | None  # share of the best one's gain that the named one gave back, where that is too much
    sentence: str  # for card, console and summary


def choose(chain: Chain, setting: Literal["named", "best"], max_general_drop: float) -> Choice:
    """Return what to publish of a chain whose `published` is the named stage."""
    start, named = chain.checkpoints[0], chain[chain.published]
    best = _best(_candidates(chain, named), start, named, max_general_drop)
    lost = None if best is named else _lost(start, best, named)
    published = best if lost is not None and setting == "best" else named
    sentence = _sentence(start, best, named, published, lost) + _beyond(start, published, max_general_drop)
    return Choice(named.name, best.name, published.name, lost, sentence)


def _candidates(chain: Chain, named: Checkpoint) -> list[Checkpoint]:
    """Return the examined stages that could be published, in pipeline order, the named one last."""
    talks = _has_learned_conversations(chain, named.name)
    line = [c for c in reversed(chain.ancestors(named.name)) if c.exam and not kind_of(c.kind).starts]
    line = [c for c in line if c is named or not _is_paired(chain, c.name)]
    return [c for c in line if c is named or not talks or _has_learned_conversations(chain, c.name)]


def _is_paired(chain: Chain, name: str) -> bool:
    """Whether layers of a stage's model have copies beside them, which no other program loads."""
    for stage in chain.ancestors(name):
        if stage.metrics.get("collapse"):
            return False
        if growth := stage.metrics.get("growth"):
            return bool(growth["method"] == CONTROL_LLM)
    return False


def _has_learned_conversations(chain: Chain, name: str) -> bool:
    """Whether a stage, or one whose weights went into it, was fine-tuned on conversations."""
    manifest = chain.manifests[name]
    behind = [other for other in manifest.get("inputs", {}) if other in chain]
    return kind_of(manifest["kind"]).part == "conversations" or any(
        _has_learned_conversations(chain, other) for other in behind
    )


def _best(candidates: Sequence[Checkpoint], start: Checkpoint, named: Checkpoint, drop: float) -> Checkpoint:
    """Return the best of some stages in pipeline order, or the named one where none keeps the limit."""
    allowed = [c for c in candidates if (fell := _score(start, c, "general")) is None or fell.difference >= -drop]
    scored = [c for c in allowed if c.score("domain")]
    if scored:
        top = max(reversed(scored), key=lambda c: float((c.score("domain") or {})["score"]))
        allowed = [c for c in scored if c is top or _like(_score(c, top, "domain"))]
    if measured := [c for c in allowed if c.bits("domain") is not None]:
        lowest = min(reversed(measured), key=lambda c: float(c.bits("domain") or 0))
        allowed = [c for c in measured if c is lowest or _like(_texts(lowest, c))]
    return allowed[-1] if allowed else named


def _like(found: Comparison | TextComparison | None) -> bool:
    """Whether an interval cannot tell two checkpoints apart; without one their values decide."""
    return found is not None and found.low is not None and found.high is not None and found.low <= 0 <= found.high


def _score(before: Checkpoint, after: Checkpoint, side: str) -> Comparison | None:
    return find(compare(before.name, after.name, before.records, after.records), before.name, after.name, side)


def _texts(before: Checkpoint, after: Checkpoint) -> TextComparison | None:
    return find(compare_texts(before.name, after.name, before.texts, after.texts), before.name, after.name, "domain")


def _lost(start: Checkpoint, best: Checkpoint, named: Checkpoint) -> float | None:
    """Return the share of the best one's gain that the named one gave back, if that is shown and too much."""
    gain, loss = _score(start, best, "domain"), _score(best, named, "domain")
    if gain is not None and loss is not None and gain.low > 0:
        share = -loss.difference / gain.difference
        return share if loss.high < 0 and share > TOO_MUCH else None
    fewer, more = _texts(start, best), _texts(best, named)
    if fewer is None or more is None or fewer.high is None or more.low is None or fewer.high >= 0:
        return None
    share = (more.bits_after - more.bits_before) / (fewer.bits_before - fewer.bits_after)
    return share if more.low > 0 and share > TOO_MUCH else None


def _beyond(start: Checkpoint, published: Checkpoint, drop: float) -> str:
    """Say that what is published fell by more than the gate allows, if it did."""
    fell = _score(start, published, "general")
    if fell is None or fell.difference >= -drop:
        return ""
    change = points_range(fell.difference, fell.low, fell.high, " points")
    return f" Its general score changed by {change} against `{start.name}`, more than gate.max_general_drop={drop:g}."


def _sentence(start: Checkpoint, best: Checkpoint, named: Checkpoint, published: Checkpoint, lost: float | None) -> str:
    """Say what is published and why, and what the named stage cost against the best one."""
    if best is named:
        return f"`{named.name}`, the stage that the pipeline names."
    costs = []
    if (score := _score(best, named, "domain")) is not None:
        costs.append(f"{points_range(score.difference, score.low, score.high, ' points')} of domain score")
    if (texts := _texts(best, named)) is not None:
        bits = " to ".join(number(value, 3) for value in (texts.bits_before, texts.bits_after))
        change = change_interval(texts.change, texts.low, texts.high)
        costs.append(f"{change} bits per byte of domain text ({bits}; lower is better)")
    cost = f"Against `{best.name}`, `{named.name}` changed: {' and '.join(costs)}."
    if lost is not None:
        cost += f" It gave back {percent(lost)} of what `{best.name}` gained over `{start.name}`."
    if published is not named:
        return f"`{best.name}`, in the place of `{named.name}`, which the pipeline names (publish.choose=best). {cost}"
    said = f"`{named.name}`, the stage that the pipeline names. The best stage before it is `{best.name}`. {cost}"
    return said if lost is None else f"{said} publish.choose=best publishes `{best.name}` instead."
