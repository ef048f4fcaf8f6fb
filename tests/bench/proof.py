"""What each alignment route is worth on the embedded domains: medians over three seeds beside their floors.

Medicine for what pairs teach, mathematics for what a program checks. One store per seed, so the base and the CPT are
made once. It takes about an hour on two cores; `just bench proof` is not part of any test.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY

SEEDS = (0, 1, 2)
FEW = "sft.tokens=24576"  # of examples, so that rewards have something to add


def run(root: Path, seed: int, domain: str, pipeline: str, *words: str) -> Path:
    """Run one pipeline and return its view of the store."""
    given = [f"domain={domain}", f"pipeline={pipeline}", f"seed={seed}", f"out={root}", *words, "quiet"]
    given += os.environ.get("PROOF_WORDS", "").split()
    subprocess.run([sys.executable, "-m", "common", "run", *given], cwd=REPOSITORY, check=True)
    return root / "runs" / domain / "tiny" / pipeline


def metrics(view: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((view / stage / "manifest.json").read_text(encoding="utf-8"))["metrics"]
    return found


def exam(view: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((view / f"exam-{stage}" / "exam.json").read_text(encoding="utf-8"))
    return found


def score(view: Path, stage: str, side: str = "domain") -> float:
    return float(exam(view, stage)["exam"][side]["score"])


def preferences(root: Path, seed: int) -> dict[str, float]:
    found = {}
    for pipeline, stage in (("full", "dpo"), ("orpo", "orpo"), ("kto", "kto")):
        view = run(root, seed, "medical", pipeline)
        found[f"{stage}: held-out pairs"] = metrics(view, stage)["preference_accuracy"]["score"]
        found[f"{stage}: domain exam"] = score(view, stage)
    return found


def rlhf(root: Path, seed: int) -> dict[str, float]:
    view = run(root, seed, "medical", "rlhf")
    held = metrics(view, "rlhf")["heldout_reward"]
    return {
        "reward: pairs kept from training": metrics(view, "reward")["ranking_accuracy"]["score"],
        "reward: pairs of other entities": metrics(view, "reward")["elsewhere"]["ranking_accuracy"]["score"],
        "rlhf: gain in held-out reward": held["gain"],
        "rlhf: low end of its interval": held["low"],
        "rlhf: domain exam - sft's": score(view, "rlhf") - score(view, "sft"),
    }


def format_kept(root: Path, seed: int) -> dict[str, float]:
    found = {}
    for pipeline, stage in (("residual", "residual"), ("sec", "ties")):
        view = run(root, seed, "medical", pipeline)
        written = exam(view, stage)["written"]
        for side in ("general", "domain"):
            if side in written:
                found[f"{pipeline}: {side} answers that stop"] = written[side]["stopped"]["score"]
        found[f"{pipeline}: domain exam - instruct's"] = score(view, stage) - score(view, "instruct")
    return found


def adapters(root: Path, seed: int) -> dict[str, float]:
    found = {}
    view = run(root, seed, "medical", "full")
    full = {stage: score(view, stage) for stage in ("cpt", "sft", "dpo")}
    for kind in ("lora", "qlora"):
        view = run(root, seed, "medical", "full", f"sft.peft={kind}", f"dpo.peft={kind}")
        for stage in ("sft", "dpo"):
            found[f"{stage} with {kind} - full"] = score(view, stage) - full[stage]
    view = run(root, seed, "medical", "full", "cpt.peft=lora")
    return found | {f"cpt with lora: {stage} - full": score(view, stage) - full[stage] for stage in ("cpt", "sft")}


def verified(root: Path, seed: int) -> dict[str, float]:
    view = run(root, seed, "math", "grpo", FEW)
    found = {"grpo: exact - sft's": score(view, "grpo") - score(view, "sft")}
    view = run(root, seed, "math", "rlvr")
    rounds = metrics(view, "expert")["rounds"]
    return found | {
        "expert: best round - round 0": max(r["right"] for r in rounds[1:]) - rounds[0]["right"],
        "rlvr: exact - sft's": score(view, "grpo") - score(view, "sft"),
    }


PARTS = {
    "preferences": preferences, "rlhf": rlhf, "format": format_kept, "adapters": adapters, "verified": verified,
}  # fmt: skip
FLOORS: dict[str, float] = {
    "dpo: held-out pairs": 0.90, "orpo: held-out pairs": 0.90, "kto: held-out pairs": 0.90,
    "reward: pairs kept from training": 0.90, "rlhf: low end of its interval": 0.0,
    "rlhf: domain exam - sft's": -0.03, "residual: domain answers that stop": 0.95,
    "residual: general answers that stop": 0.95, "sec: domain answers that stop": 0.95,
    "sec: general answers that stop": 0.95, "residual: domain exam - instruct's": 0.1,
    "sec: domain exam - instruct's": 0.1, "sft with lora - full": -0.05, "dpo with lora - full": -0.05,
    "sft with qlora - full": -0.05, "dpo with qlora - full": -0.05, "cpt with lora: cpt - full": -0.15,
    "cpt with lora: sft - full": -0.15, "grpo: exact - sft's": 0.10, "expert: best round - round 0": 0.0,
}  # fmt: skip


def main(parts: Sequence[str] = tuple(PARTS)) -> int:
    """Run the named parts and return how many floors were missed.

    PROOF_STORE keeps what was made, PROOF_SEEDS=0 takes fewer seeds, PROOF_WORDS adds words to every run.
    """
    missed = 0
    seeds = [int(seed) for seed in os.environ.get("PROOF_SEEDS", "").split(",") if seed] or list(SEEDS)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(os.environ.get("PROOF_STORE", folder))
        for part in parts:
            found = [PARTS[part](root / f"seed-{seed}", seed) for seed in seeds]
            for key in found[0]:
                values = [one[key] for one in found]
                median, least = statistics.median(values), FLOORS.get(key)
                mark = "    " if least is None else "ok  " if median >= least else "MISS"
                missed += mark == "MISS"
                floor = "" if least is None else f"  (>= {least})"
                print(f"  {mark} {key:<38} {median:+.3f}  {[round(v, 3) for v in values]}{floor}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or tuple(PARTS)) > 0)
