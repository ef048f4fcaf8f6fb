"""`python -m tests.fuzz [cases] [folder] [kind] [start]`: run hostile inputs, print the counts, keep what failed.

Without a kind (or with `all`) the cases are of every kind; each number as `start` makes other cases.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.fuzz.campaign import SHARES, campaign, shares, table
from tests.fuzz.sandbox import FAILURES


def main(arguments: list[str]) -> int:
    number = int(arguments[0]) if arguments else sum(SHARES.values())
    folder = Path(arguments[1] if arguments[1:] else tempfile.mkdtemp(prefix="fuzz-")).absolute()
    numbers = {arguments[2]: number} if arguments[2:] and arguments[2] != "all" else shares(number)
    found = campaign(numbers, folder, int(arguments[3]) if arguments[3:] else None)
    print(table(found))
    failed = [each for each in found if each["result"] in FAILURES]
    if failed:
        print(f"{len(failed)} failed; their inputs and what was seen: {folder}/<kind>-<number>/")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
