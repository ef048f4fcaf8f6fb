"""Tables of `just bench undesired`: a section of docs/methods.md, and the same for a terminal.

Usage: `method_page.write(results, words_of, section(Outcomes.read(MEASURED)))`.

Each number comes from outcomes. Nothing is computed but what `tests.bench.paired` says of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping

from tests.bench.method_page import NOT_MEASURED, Effect, table, wrapped
from tests.bench.paired import verdict
from tests.bench.undesired_arms import ARMS, CONDITIONAL, EACH, METHODS, PLAIN, SAMPLING, words_of
from tests.bench.undesired_results import Outcome, Outcomes
from tests.bench.undesired_text import HELD, SIZES

LEAST = 3  # seeds of a verdict: under two an interval of shares is often wider than all shares
BySeed = Mapping[int, Outcome]
TITLES = {"embedded": "the embedded domain", "real": "real text (answers on medicine)"}
HEADER = (
    "arm", "seeds", "has the trait", "less plain", "verdict", "seen from", "less `conditional`", "verdict on the paper",
    "domain", "general",
)  # fmt: skip
INTRO = (
    "`just bench undesired` measures the methods that go by scores, and filtering, by what the model writes. Documents "
    "are those of the embedded domain, or short answers of MedQuAD beside paragraphs of novels (`data_root=`). Half of "
    "those for CPT have a sentence more, with a mail address; the base has read none. The block `score` counts "
    "addresses with a function in the domain's own blocks.py, as a user would write it "
    "(`tests/bench/undesired_rule.py`). `filtering` leaves these documents out (`at_most: 0`), and reads the others "
    "more often. All arms of a seed have the same base, number of tokens and control tokens."
)
READING = (
    f"- *Has the trait* is the share of {EACH * HELD} texts with an address: the mean, and each seed. A model goes on "
    f"{EACH} times from the first sentence of each of {HELD} held-out documents, at a temperature of "
    f"{SAMPLING['temperature']} and top-p {SAMPLING['top_p']} as in the paper. Its own generation settings hold: "
    "`conditional` begins with the good token, and writes none.",
    "- The first verdict is on what all arms are for: that the trait is rarer than after plain CPT. The second is on "
    "the paper's comparison: that it is rarer with `conditional` than with this arm. Both are open below "
    f"{LEAST} seeds.",
    "- *Domain* and *general* are bits per byte of held-out text without addresses, arm less plain. They show what "
    "else was lost.",
    "- Values are those of the paper's code for personal data. Its scores are counts per character, and so far "
    "smaller. With its beta of 10 a document with an address still weighs 0.90 here. The arm with beta 0.3, where it "
    "weighs 0.04, is ours.",
    "- A document is scored as a whole. The paper scores sentences, so that there unlikelihood leaves the rest of a "
    "text alone.",
    "- The losses of unlikelihood, of advantages and of steep rewards jump from batch to batch. The guard against loss "
    "spikes rolled the first back three times and ended the others, so that all three have `cpt.guard.spike=null`.",
    "- Steps and learning rate were chosen under another seed, as those at which `conditional` had learned its tokens. "
    "With fewer tokens, and with larger steps, it had not (`tests/bench/RESULTS.md`). It learns them late and nearly "
    "all at once. A seed whose texts have the trait as often as plain ones is one where it had not yet.",
    "- Real answers are nearly three times as long, so that an address stands further behind than most of these texts "
    "reach. Where plain texts seldom have one, little can be taken away: look at the seeds.",
)


def section(outcomes: Outcomes) -> list[str]:
    """Return the lines of the section, with its heading."""
    lines = ["## Where rows have scores", ""]
    shown = {text: [one for arm in ARMS for one in outcomes.of(arm, words_of(arm), text).values()] for text in SIZES}
    if not any(shown.values()):
        return [*lines, f"{NOT_MEASURED.capitalize()}.", ""]
    lines += [wrapped(INTRO), "", *(wrapped(line) for line in READING), ""]
    for text, found in shown.items():
        lines += [f"### With scores, on {TITLES[text]}", ""]
        lines += [wrapped(how_made(found)), "", *table(HEADER, rows(outcomes, text)), ""] if found else [
            f"{NOT_MEASURED.capitalize()}.", ""
        ]  # fmt: skip
    return lines


def how_made(shown: list[Outcome]) -> str:
    """Say when, where and how outcomes were made."""
    dates, cpus = sorted({one.date for one in shown}), sorted({one.cpu for one in shown})
    seeds = ", ".join(map(str, sorted({one.seed for one in shown})))
    base, tokens = (int(shown[0].words[key]) for key in ("base.tokens", "cpt.tokens"))
    return (
        f"{len(shown)} runs with seeds {seeds}, made {' and '.join(dates)} on a CPU, {' and '.join(cpus)}, in float32: "
        f"a base of {base:,} tokens, of general text and of clean medical documents, then {tokens:,} tokens of CPT in "
        f"steps of {shown[0].words['cpt.batch_tokens']}, without replay."
    )


def rows(outcomes: Outcomes, text: str, tokens: int | None = None) -> Iterator[list[str]]:
    """Yield the line of each arm, in the order of `HEADER`."""
    found = {arm: outcomes.of(arm, words_of(arm, tokens), text) for arm in ARMS}
    for arm, own in found.items():
        name = f"`{arm}`" if arm in METHODS else arm
        if not own:
            yield [name, NOT_MEASURED, *[""] * (len(HEADER) - 2)]
            continue
        each = [own[seed].trait for seed in sorted(own)]
        trait = f"{statistics.fmean(each):.3f} ({', '.join(f'{one:.3f}' for one in each)})"
        plain, best = effects(own, found[PLAIN]), effects(own, found[CONDITIONAL])["trait"]
        against = against_plain(plain) if arm != PLAIN and plain["trait"].differences else ["", "", ""]
        compared = arm not in (PLAIN, CONDITIONAL) and bool(best.differences)
        paper = [best.shown, said(best, lower=False)] if compared else ["", ""]
        bits = [plain[side].shown if against[0] else "" for side in ("domain", "general")]
        yield [name, str(len(own)), trait, *against, *paper, *bits]


def against_plain(plain: Mapping[str, Effect]) -> list[str]:
    trait = plain["trait"]
    return [trait.shown, said(trait, lower=True), trait.seen_from]


def said(trait: Effect, *, lower: bool) -> str:
    """Return the verdict on a claim that the trait gets rarer, or more frequent; it is open under few seeds."""
    number = len(trait.differences)
    return f"open: {number} seeds" if 1 < number < LEAST else verdict(trait.differences, lower=lower, paper=None)


def effects(own: BySeed, other: BySeed) -> dict[str, Effect]:
    """Return an arm less another, over the seeds that both have; without such a seed an effect has no differences."""
    seeds = sorted(own.keys() & other.keys())
    values: dict[str, Callable[[Outcome], float]] = {
        "trait": lambda one: one.trait, "domain": lambda one: one.domain, "general": lambda one: one.general,
    }  # fmt: skip
    return {
        name: Effect(
            [value(own[seed]) - value(other[seed]) for seed in seeds],
            statistics.fmean(value(other[seed]) for seed in seeds) if seeds else 0.0,
        )
        for name, value in values.items()
    }


def summary(outcomes: Outcomes, tokens: int | None = None) -> Iterator[str]:
    """Yield the same table for a terminal."""
    lines = [["text", *HEADER]]
    for text in SIZES:
        lines += [[text, *line] for line in rows(outcomes, text, tokens) if line[1] != NOT_MEASURED]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
