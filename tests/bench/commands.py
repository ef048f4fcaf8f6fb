"""How long the short commands take on a finished run: wall seconds, median of five, in fresh processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

from tests.conftest import QUICK, REPOSITORY

COMMANDS = {
    "run (nothing changed)": (["run"], 1.5),
    "plan": (["plan"], 1.0),
    "why": (["why", "stage=sft"], 1.0),
    "status": (["status"], 1.0),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = ["domain=medical", f"out={folder}", *(f"{k}={v}" for k, v in QUICK.items())]
        subprocess.run([sys.executable, "-m", "common", "run", *words], cwd=REPOSITORY, check=True, capture_output=True)
        for name, (command, limit) in COMMANDS.items():
            given = [f"out={folder}"] if command == ["status"] else words
            times = []
            for _ in range(5):
                started = time.monotonic()
                subprocess.run(
                    [sys.executable, "-m", "common", *command, *given], cwd=REPOSITORY, check=True, capture_output=True
                )
                times.append(time.monotonic() - started)
            found = statistics.median(times)
            print(f"  {'ok  ' if found <= limit else 'MISS'} {name:<24} {found:.2f} s (limit {limit} s)")
