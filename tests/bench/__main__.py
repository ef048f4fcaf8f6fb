"""`just bench` runs all benchmarks; `just bench training` only the named ones.

`just bench chaos kills=200` gives one of them its options.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

from tests.bench import (
    alignment,
    architectures,
    cleaning,
    cleaning_pays,
    commands,
    cost,
    demonstration,
    exam,
    growth,
    methods,
    proof,
    real_data,
    scale,
    switches,
    tokens,
    training,
    undesired,
)
from tests.bench.chaos import report

BENCHMARKS: dict[str, Callable[..., int | None]] = {
    "commands": commands.main,
    "training": training.main,
    "switches": switches.main,
    "tokens": tokens.main,
    "cleaning": cleaning.main,
    "scale": scale.main,
    "alignment": alignment.main,
    "cost": cost.main,
    "exam": exam.main,
    "growth": growth.main,
    "architectures": architectures.main,
    "cleaning-pays": cleaning_pays.main,
    "real-data": real_data.main,
    "methods": methods.main,
    "undesired": undesired.main,
    "demonstration": demonstration.main,
    "proof": proof.main,
    "chaos": report.main,
}


def main(words: list[str]) -> int:
    names = [word for word in words if "=" not in word]
    options = dict(word.split("=", 1) for word in words if "=" in word)
    for name in names:
        if name not in BENCHMARKS:
            print(f"error: there is no benchmark '{name}'. Known: {', '.join(BENCHMARKS)}.", file=sys.stderr)
            return 1
    for name in names or list(BENCHMARKS):
        known = inspect.signature(BENCHMARKS[name]).parameters
        if unknown := sorted(set(options) - set(known)):
            print(f"error: {name} has no '{unknown[0]}'. Known: {', '.join(known) or 'none'}.", file=sys.stderr)
            return 1
    missed = 0
    for name in names or list(BENCHMARKS):
        print(f"\n{name}", flush=True)
        missed += BENCHMARKS[name](**options) or 0
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
