"""Write docs/methods.md from what was measured; a method without a run is shown as not measured yet.

Usage: `write(results, words_of)`; `page(results, words_of)` is its text, the same for the same results and registry.

Each number comes from runs in the file of results. Nothing is computed but what `tests.bench.paired` says of them.
"""

from __future__ import annotations

import math
import shlex
import statistics
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from common.config.methods import methods
from tests.bench.arm import CHECKPOINT, SIDES, Arm, Setting, Side
from tests.bench.method_arms import ARMS
from tests.bench.method_results import AGAIN, Results, Run, bits
from tests.bench.paired import interval, smallest_seen, verdict
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "methods.md"
NOT_MEASURED = "not measured yet"
TEXTS = {
    "embedded": "the embedded domain (medicine)",
    "real": "real text (novels, then answers on medicine)",
    CHECKPOINT: "SmolLM2-135M-Instruct (answers on medicine)",
}
Words = Callable[[Setting, str], Mapping[str, str]]
INTRO = """\
# What each method is worth

`just bench methods` writes this page from its own runs (`tests/bench/methods.json`); do not edit it. The formula of
each method is in its module below `common/training/methods/`.

Each method is set against its plain counterpart, with the same seed, base and token budget. The model has one million
parameters, or 135 million where the table says so, and reads few tokens. So this shows whether a method does here what
its paper says. It does not show what the method is worth at the size that it was made for.

- Effects are in bits per byte of held-out text, method less plain: below zero the method is better. What learns less of
  the domain also forgets less, so both sides count.
- Intervals are Student's over paired seeds, at 95%. Nothing is corrected for how many methods are compared.
- *Seen from* is the smallest effect that such a test finds in 80 of 100 cases, with the spread of these pairs.
- A verdict is on each side that the paper says something of: *supports*, *contradicts*, or *no effect within* the size
  that the interval leaves. It is *underpowered* where the paper's own effect, as a share of its loss, is smaller than
  what could be seen. One seed has no verdict.
"""


class Effect(NamedTuple):
    """What pairs of runs say of one side."""

    differences: list[float]
    plain: float  # mean of the plain runs

    @property
    def shown(self) -> str:
        mean, half = interval(self.differences)
        return f"{mean:+.3f}" + (f" ± {half:.3f}" if math.isfinite(half) else " (one seed)")

    @property
    def seen_from(self) -> str:
        least = smallest_seen(self.differences)
        return f"{least:.3f}" if math.isfinite(least) else "-"


def pairs_of(results: Results, arm: Arm, text: str, words: Words) -> list[tuple[Run, Run]]:
    """Return the runs of an arm and its plain counterpart, for each seed that both have."""
    on, plain = (
        results.by_seed(words(setting, text), setting.stage, text) for setting in arm.settings(text)
    )  # fmt: skip
    return [(on[seed], plain[seed]) for seed in sorted(on.keys() & plain.keys())]


def effect(pairs: Sequence[tuple[Run, Run]], side: Side) -> Effect:
    return Effect(
        [bits(on, side) - bits(plain, side) for on, plain in pairs],
        statistics.fmean(bits(plain, side) for _, plain in pairs),
    )


def verdicts(arm: Arm, pairs: Sequence[tuple[Run, Run]]) -> str:
    """Return the verdict on each side that is claimed."""
    found = []
    for side, lower in arm.claim.expects.items():
        seen, share = effect(pairs, side), arm.claim.shares.get(side)
        paper = None if share is None else share * seen.plain
        found.append(f"{side}: {verdict(seen.differences, lower=lower, paper=paper)}")
    return "; ".join(found) or "-"


def row(results: Results, name: str, arm: Arm, text: str, words: Words) -> list[str]:
    """Return a method's line of the table of one text."""
    pairs = pairs_of(results, arm, text, words)
    if not pairs:
        return [f"`{name}`", NOT_MEASURED, *[""] * (1 + 2 * len(SIDES))]
    effects = [effect(pairs, side) for side in SIDES]
    cells = [cell for seen in effects for cell in (seen.shown, seen.seen_from)]
    return [f"`{name}`", verdicts(arm, pairs), str(len(pairs)), *cells]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"


def how_made(runs: Sequence[Run]) -> str:
    """Say in a paragraph when, where and how runs were made."""
    dates = sorted({run.date for run in runs})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    numbers = sorted({run.seed for run in runs})
    seeds = f"seed{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
    tokens = " and ".join(sorted({f"{int(run.words['cpt.tokens']):,}" for run in runs}))
    bases = sorted({f"{int(run.words['base.tokens']):,}" for run in runs if "base.tokens" in run.words})
    base = "in the precision that it computes: all weights of a checkpoint of four bits, which any training repairs;"
    if bases:
        base = f"in float32: a base of {' and '.join(bases)} tokens, then"
    cpus = " and ".join(sorted({run.cpu for run in runs}))
    busy = sum(run.clock for run in runs) / max(1.0, sum(run.processor for run in runs))
    shared = f" Other jobs shared the machine: a run took {busy:.1f} times its CPU time." if busy > 1.5 else ""
    return f"{len(runs)} runs with {seeds}, made {when} on a CPU, {cpus}, {base} {tokens} tokens of CPT.{shared}"


def cost_rows(results: Results, arms: Mapping[str, Arm]) -> Iterator[list[str]]:
    if (again := results.cost(AGAIN)) is not None:
        yield ["plain, a second time", again.time, "", "", f"{again.megabytes:+.0f} MB"]
    for name, arm in arms.items():
        if arm.texts == (CHECKPOINT,):  # what its step costs is not measured on so large a model
            continue
        limit = "" if arm.limit is None else f"<= {arm.limit:g}"
        if arm.timed_by:
            yield [f"`{name}`", f"`just bench {arm.timed_by}` measures it", limit, "", ""]
            continue
        if arm.untimed:
            yield [f"`{name}`", f"not measured: {arm.untimed}", limit, "", ""]
        elif (cost := results.cost(name)) is None:
            yield [f"`{name}`", NOT_MEASURED, limit, "", ""]
        else:
            yield [f"`{name}`", cost.time, limit, cost.verdict(arm.limit), f"{cost.megabytes:+.0f} MB"]


def section(name: str, arm: Arm) -> Iterator[str]:
    """Yield what a method is, and what was set."""
    method = methods().get(name)
    phrase, paper = (arm.phrase, arm.paper) if method is None else (method.phrase, method.paper)
    yield f"### {name}"
    yield ""
    yield wrapped(f"{phrase[:1].upper()}{phrase[1:]}. Paper: {paper}.")
    yield ""
    yield wrapped(f"- Claim: {arm.claim.text} Source: {arm.claim.source}.")
    on, plain = map(as_words, (arm.on, arm.plain))
    yield f"- On: `{on}`"
    yield f"- Plain: `{plain}`"
    for text, settings in arm.elsewhere.items():
        where = "of the checkpoint" if text == CHECKPOINT else "on real text"
        for what, one, usual in zip(("On", "Plain"), settings, (on, plain), strict=True):
            if as_words(one) != usual:
                yield f"- {what}, {where}: `{as_words(one)}`"
    if arm.ours:
        yield wrapped(f"- Ours: {arm.ours}.")
    yield ""


def as_words(setting: Setting) -> str:
    return shlex.join(f"{key}={value}" for key, value in setting.words.items())


def wrapped(text: str) -> str:
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(text, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def page(
    results: Results, words: Words, arms: Mapping[str, Arm] | None = None, further: Sequence[str] = ()
) -> str:  # fmt: skip
    """Return the text of the page; `further` are the lines of a section that another bench measured."""
    arms = ARMS if arms is None else arms
    lines = [*INTRO.splitlines(), ""]
    for text, title in TEXTS.items():
        shown = [run for arm in arms.values() for pair in pairs_of(results, arm, text, words) for run in pair]
        lines += [f"## On {title}", ""]
        if shown:
            header = ["method", "verdict on the claim", "seeds", "domain", "seen from", "general", "seen from"]
            rows = [row(results, name, arm, text, words) for name, arm in arms.items() if text in arm.texts]
            distinct = [run for place, run in enumerate(shown) if run not in shown[:place]]
            lines += [wrapped(how_made(distinct)), "", *table(header, rows), ""]
        else:
            lines += [f"{NOT_MEASURED.capitalize()}.", ""]
    lines += further
    lines += ["## What a step costs", "", *cost_intro(results), ""]
    lines += [*table(["method", "time of a step", "limit", "", "memory"], cost_rows(results, arms)), ""]
    lines += ["## The methods", ""]
    for name, arm in arms.items():
        lines += section(name, arm)
    return "\n".join(lines).rstrip() + "\n"


def cost_intro(results: Results) -> Iterator[str]:
    """Yield how costs were measured."""
    if not results.costs:
        yield f"{NOT_MEASURED.capitalize()}."
        return
    dates = sorted({cost.date for cost in results.costs})
    cpus = " and ".join(sorted({cost.cpu for cost in results.costs}))
    steps = " and ".join(sorted({str(cost.steps) for cost in results.costs}))
    yield wrapped(
        f"CPU time of {steps} optimizer steps over that of the plain counterpart, one step of each in turns and one "
        f"process for each, with a 95% bootstrap interval over the steps; {' and '.join(dates)}, {cpus}. It passes "
        "where the whole interval is within the limit, fails where all of it is above, and is undecided otherwise. "
        "A second plain loop shows by how much two processes differ that do the same, which no interval holds. Memory "
        "is the most that the process held, less the plain one's. What is done once, such as ordering the rows, is not "
        "in it."
    )


def summary(results: Results, arms: Mapping[str, Arm], words: Words) -> Iterator[str]:
    """Yield the same tables for a terminal."""
    for text in TEXTS:
        for name, arm in arms.items():
            if pairs := pairs_of(results, arm, text, words):
                sides = ", ".join(f"{side} {effect(pairs, side).shown}" for side in SIDES)
                yield f"{text:<9} {name:<18} {sides:<44} {verdicts(arm, pairs)}"


def write(results: Results, words: Words, further: Sequence[str], path: Path = PAGE) -> None:
    path.write_text(page(results, words, further=further), encoding="utf-8")
