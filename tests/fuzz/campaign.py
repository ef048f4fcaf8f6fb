"""Run many hostile inputs in a child process, count how they ended, and keep those that failed.

Usage: `counts = campaign({"manifest": 20}, folder)`; `python -m tests.fuzz 1000` prints them as a table.

A child that dies is a counted failure of the case that it was at; a new one goes on with the next.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY
from tests.fuzz.sandbox import FAILURES, Outcome, run_case
from tests.fuzz.strategies import KINDS, drawn, good_checkpoint, good_run

SECONDS = 10  # that a case may take
MEMORY = 6 * 2**30  # bytes of a child; a case that asks for more fails
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HF_HUB_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# Cases of `just test`, by kind: 200 in all. What loads a tokenizer costs ten times as much as what reads settings.
SHARES = {"overrides": 30, "manifest": 35, "manifest text": 25, "plan": 20, "pipeline": 25, "domain": 20,
    "checkpoint": 15,
          "header": 10, "rows": 20}  # fmt: skip


def shares(number: int) -> dict[str, int]:
    """Return how many cases of each kind make a number of cases."""
    return {kind: round(share * number / sum(SHARES.values())) for kind, share in SHARES.items()}


def campaign(numbers: dict[str, int], folder: Path, start: int | None = None) -> list[dict[str, Any]]:
    """Return how every case ended: kind, number, result, detail, seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "outcomes.jsonl"
    log.write_text("", encoding="utf-8")
    while (at := next_case(numbers, outcomes(log))) is not None:
        environment = {
            **os.environ,
            **ENVIRONMENT,
            "HF_HOME": f"{folder}/hub",
            "TORCHINDUCTOR_CACHE_DIR": f"{folder}/torch",
        }
        command = [sys.executable, "-m", "tests.fuzz.campaign", str(folder), json.dumps(numbers), json.dumps(start)]
        with (folder / "child.log").open("ab") as stream:
            code = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=stream, stderr=stream).returncode
        found = outcomes(log)
        if next_case(numbers, found) == at and code == 0:
            raise AssertionError(f"the child did nothing; see {folder / 'child.log'}")
        if code != 0 and (kind_and_number := next_case(numbers, found)) is not None:
            kind, number = kind_and_number
            tail = (folder / "child.log").read_text("utf-8", "replace")[-3000:]
            if not (folder / f"{kind}-{number}").exists():
                raise AssertionError(f"the child ended with {code} before a case began:\n{tail}")
            result = "hang" if "Timeout (" in tail else "crash"
            note(log, kind, number, Outcome(result, f"exit code {code}\n{tail}"), SECONDS)
    return outcomes(log)


def outcomes(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def next_case(numbers: dict[str, int], found: list[dict[str, Any]]) -> tuple[str, int] | None:
    """Return the kind and number of the first case that has no outcome."""
    done = Counter(each["kind"] for each in found)
    return next(((kind, done[kind]) for kind, number in numbers.items() if done[kind] < number), None)


def note(log: Path, kind: str, number: int, outcome: Outcome, seconds: float) -> None:
    facts = {
        "kind": kind,
        "number": number,
        "result": outcome.result,
        "detail": outcome.detail,
        "seconds": round(seconds, 3),
    }
    with log.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(facts) + "\n")


def warm_up(root: Path) -> None:
    """Load the libraries, so that no case is measured by them. Raises AssertionError where a good run is refused."""
    shutil.rmtree(root, ignore_errors=True)
    cases = (good_run(), good_checkpoint())
    for number, case in enumerate((*cases, *cases)):
        outcome = run_case(case, root / str(number), 120)
        assert number < len(cases) or outcome.result == "clean", outcome  # torch makes a folder when it is loaded
    shutil.rmtree(root)


def child(folder: Path, numbers: dict[str, int], start: int | None) -> None:
    """Run the cases that have no outcome yet. The folder of a case that failed is kept."""
    log = folder / "outcomes.jsonl"
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    warm_up(folder / "warm-up")
    for kind, number in numbers.items():
        done = Counter(each["kind"] for each in outcomes(log))[kind]
        for place, case in enumerate(drawn(kind, number, start) if done < number else ()):
            if place < done:
                continue
            root, started = folder / f"{kind}-{place}", time.monotonic()
            faulthandler.dump_traceback_later(6 * SECONDS, exit=True)  # in code that no signal reaches
            shutil.rmtree(root, ignore_errors=True)
            outcome = run_case(case, root, SECONDS)
            faulthandler.cancel_dump_traceback_later()
            if outcome.result in FAILURES:
                text = json.dumps(case.arguments) + "\n" + outcome.detail
                (root / "case.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
            else:
                shutil.rmtree(root)
            note(log, kind, place, outcome, time.monotonic() - started)
        missing = number - max(done, place + 1 if number > done else 0)
        for more in range(missing):
            note(log, kind, number - missing + more, Outcome("clean", "no such case"), 0)


def table(found: list[dict[str, Any]]) -> str:
    """Return the counts by kind as a Markdown table."""
    results = ("clean", "error", *FAILURES)
    lines = ["| kind | cases | " + " | ".join(results) + " |", "| --- " * (len(results) + 2) + "|"]
    for kind in [*KINDS, "all"]:
        of_kind = [each for each in found if kind in (each["kind"], "all")]
        counts = Counter(each["result"] for each in of_kind)
        if of_kind:
            lines.append(f"| {kind} | {len(of_kind)} | " + " | ".join(str(counts[name]) for name in results) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    faulthandler.enable()
    child(Path(sys.argv[1]), *map(json.loads, sys.argv[2:]))
