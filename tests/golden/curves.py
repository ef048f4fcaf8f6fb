"""Losses and weights of a short pretraining and CPT, one run for each precision that a CPU trains in.

Usage: `run = train("float32", folder)`; `python -m tests.golden` adds this machine's weights to what is checked in.

Losses agree everywhere, up to rounding. Weights agree to the last bit where torch, the processor and the number of
threads are those of a run that is checked in; elsewhere nothing is known of them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.config.resolve import resolve
from common.console import Console
from common.engine.run import run_stage
from tests.conftest import BUDGETS, REPOSITORY

FILE = Path(__file__).with_name("curves.json")
PRECISIONS = ("bfloat16", "float32")
STAGES = {"base": "8192", "cpt": "4096"}  # tokens: eight steps each
# Gentle ones: at the profile's own rates, processors that round bfloat16 otherwise are 6e-3 apart after eight steps.
RATE = "5e-4"
TOLERANCE = 1e-3
THREADS = 1


@dataclass(frozen=True)
class Run:
    """What a short run left behind, by stage."""

    losses: dict[str, list[float]]
    weights: dict[str, str]


def machine() -> str:
    """Return what the last bits of a training depend on besides the recipe."""
    capability = torch.backends.cpu.get_cpu_capability().lower()
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    vendor = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("vendor_id")), "unknown")
    tiles = ", amx" if "amx_bf16" in text else ""
    limit = f", at most {limit}" if (limit := os.environ.get("ONEDNN_MAX_CPU_ISA")) else ""
    return f"torch {torch.__version__.split('+')[0]}, {vendor}, {capability}{tiles}{limit}, {THREADS} thread"


def train(precision: str, out: Path) -> Run:
    """Pretrain the tiny base and continue on the medical domain, for a few steps each."""
    words = {"domain": "medical", "out": str(out), "run.threads": str(THREADS), "precision": precision, **BUDGETS}
    words |= {f"{stage}.tokens": tokens for stage, tokens in STAGES.items()}
    words |= {f"{stage}.train.learning_rate": RATE for stage in STAGES}
    resolved = resolve(words, REPOSITORY)
    losses, weights = {}, {}
    for stage in STAGES:
        artifact = run_stage(resolved, stage, Console("quiet"))
        records = (artifact.path / "log.jsonl").read_text(encoding="utf-8").splitlines()
        losses[stage] = [round(float(json.loads(record)["loss"]), 4) for record in records]
        weights[stage] = artifact.manifest["files"]["model.safetensors"]["sha256"][:16]
    return Run(losses, weights)


def checked_in() -> dict[str, Any]:
    """Return the losses by precision and stage, and the weights by machine below them."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found
