"""`just bench` runs all benchmarks; `just bench training` only the named ones."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.bench import alignment, commands, cost, demonstration, exam, proof, switches, training

BENCHMARKS: dict[str, Callable[[], int | None]] = {
    "commands": commands.main,
    "training": training.main,
    "switches": switches.main,
    "alignment": alignment.main,
    "cost": cost.main,
    "exam": exam.main,
    "demonstration": demonstration.main,
    "proof": proof.main,
}


def main(names: list[str]) -> int:
    for name in names:
        if name not in BENCHMARKS:
            print(f"error: there is no benchmark '{name}'. Known: {', '.join(BENCHMARKS)}.", file=sys.stderr)
            return 1
    missed = 0
    for name in names or list(BENCHMARKS):
        print(f"\n{name}")
        missed += BENCHMARKS[name]() or 0
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
