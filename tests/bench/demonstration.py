"""The demonstration of every domain over three seeds, each from nothing: medians beside their floors, time, memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common.config.folders import names_in
from tests.conftest import REPOSITORY

SEEDS = (0, 1, 2)
SECONDS_FOR_ALL = 900  # six domains on two cores


def run_all(root: Path, seed: int) -> tuple[float, float]:
    """Run every domain from nothing; return seconds and peak memory (GB) of the largest process."""
    started = time.monotonic()
    words = ["domain=all", f"seed={seed}", f"out={root}", "quiet"]
    process = subprocess.Popen([sys.executable, "-m", "common", "run", *words], cwd=REPOSITORY)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"seed {seed} failed"
    return time.monotonic() - started, usage.ru_maxrss / 1e6


def read(root: Path, domain: str) -> dict[str, float]:
    """Return the scores of one domain's chain as `<checkpoint> <side>`, and what else has a floor."""
    view = root / "runs" / domain / "tiny" / "demonstration"
    points = json.loads((view / "summary.json").read_text(encoding="utf-8"))["checkpoints"]
    found: dict[str, Any] = {f"{p['name']} {s}": p["exam"][s]["score"] for p in points for s in ("general", "domain")}
    manifest = json.loads((view / "dpo" / "manifest.json").read_text(encoding="utf-8"))
    found["preference"] = manifest["metrics"]["preference_accuracy"]["score"]
    exam = json.loads((view / "exam-merge" / "exam.json").read_text(encoding="utf-8"))
    found["merge exact"] = exam["written"]["domain"]["exact"]["score"]
    found["merge stopped"] = exam["written"]["domain"]["stopped"]["score"]
    records = [json.loads(line) for line in (view / "exam-merge" / "records.jsonl").open(encoding="utf-8")]
    asked = [record for record in records if record["side"] == "domain"]
    found["chance"] = sum(1 / len(r["scores"]) if "scores" in r else 0.0 for r in asked) / len(asked)
    return found


def floors(scores: dict[str, float]) -> list[tuple[str, bool, float]]:
    """Return (name, held, value) of every floor; an exam in writing (chance 0) has a lower one for its score."""
    least = 0.85 if scores["chance"] else 0.60
    gain = scores["sft domain"] - scores["sft-only domain"]
    return [
        ("base <= chance + 0.10", scores["base domain"] <= scores["chance"] + 0.10, scores["base domain"]),
        ("sft - sft-only >= 0.30", gain >= 0.30, gain),
        (f"sft >= {least:.2f}", scores["sft domain"] >= least, scores["sft domain"]),
        ("sft, general >= base - 0.05", scores["sft general"] >= scores["base general"] - 0.05, scores["sft general"]),
        ("merge >= dpo - 0.05", scores["merge domain"] >= scores["dpo domain"] - 0.05, scores["merge domain"]),
        ("merge stopped >= 0.95", scores["merge stopped"] >= 0.95, scores["merge stopped"]),
        ("preference >= 0.90", scores["preference"] >= 0.90, scores["preference"]),
    ]


def main() -> None:
    domains = names_in(REPOSITORY / "domains", "")
    results: dict[str, list[dict[str, float]]] = {domain: [] for domain in domains}
    costs = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            costs.append(run_all(Path(folder), seed))
            for domain in domains:
                results[domain].append(read(Path(folder), domain))
        print(f"  seed {seed}: {costs[-1][0]:.0f} s, peak {costs[-1][1]:.2f} GB")
    for domain in domains:
        median = {key: statistics.median(result[key] for result in results[domain]) for key in results[domain][0]}
        print(f"  {domain}: written answers exact {median['merge exact']:.3f}")
        for name, held, value in floors(median):
            print(f"    {'ok  ' if held else 'MISS'} {name:<28} median {value:.3f}")
    seconds = statistics.median(cost[0] for cost in costs)
    print(f"  {'ok  ' if seconds <= SECONDS_FOR_ALL else 'MISS'} all domains <= {SECONDS_FOR_ALL} s: {seconds:.0f} s")
