"""Other commands beside a run: the same one, another pipeline, and those that read the store or tidy it.

Usage: `outcome = twice(bed)`.
"""

from __future__ import annotations

import shutil

from tests.bench.chaos import chain
from tests.bench.chaos.faults import Bed, Outcome

COMMANDS: tuple[tuple[str, dict[str, str]], ...] = (("gc", {}), ("gc", {"dry": "true"}), ("verify", {}), ("status", {}))
PAUSE_SECONDS = 1.5  # at most, between two of them


def twice(bed: Bed) -> Outcome:
    """Start the same command again while it runs; then kill the first, which the second has waited for."""
    outcome = bed.outcome("the same run beside")
    for kills in (0, 1):
        root = bed.store("twice")
        first = bed.start(root, warm=True)
        first.wait(bed.moment(root, warm=True) / 2)
        second = bed.start(root, warm=True)
        if kills:
            first.wait(bed.moment(root, warm=True))
            first.kill()
        else:
            first.wait()
            outcome.wrong += [problem] if (problem := first.problem()) else []
        second.wait()
        outcome.faults += 1
        outcome.phases["first killed" if kills else "both end"] += 1
        outcome.wrong += [problem] if (problem := second.problem()) else []
        bed.finish(root, outcome)
        outcome.show()
    return outcome


def other_pipeline(bed: Bed) -> Outcome:
    """Run another pipeline in the same store; which of the two publishes first is open."""
    outcome = bed.outcome("another pipeline beside")
    root = bed.store("other")
    runs = {
        pipeline: bed.start(root, warm=True, pipeline=pipeline) for pipeline in (chain.PIPELINE, chain.OTHER_PIPELINE)
    }
    for pipeline, run in runs.items():
        run.wait()
        bed.judge(root, run, outcome, pipeline, pipeline)
    if not outcome.wrong:
        shutil.rmtree(root)
    outcome.show()
    return outcome


def tidied(bed: Bed) -> Outcome:
    """Run `gc`, `gc dry=true`, `verify` and `status` beside a run, again and again, until it ends."""
    outcome = bed.outcome("gc, verify, status beside")
    root = bed.store("tidied")
    run = bed.start(root, warm=True)
    while run.wait(bed.rng.uniform(0, PAUSE_SECONDS)) is None:
        command, more = bed.rng.choice(COMMANDS)
        outcome.faults += 1
        outcome.phases[" ".join([command, *more])] += 1
        outcome.wrong += [problem] if (problem := bed.ask(root, command, **more)) else []
    outcome.wrong += [problem] if (problem := run.problem()) else []
    bed.finish(root, outcome)
    outcome.show()
    return outcome
