"""Reinforcement learning with RLOO (Ahmadian et al. 2024, arXiv 2402.14740) on rewards that are checked or modelled.

Usage: named by a pipeline as `rloo: {kind: rloo, from: sft}`; a domain names its rewards in stages.yaml.
"""

from __future__ import annotations

from typing import Any

from common.stage import StageContext, StageReport
from common.stages.rewarded import reinforce

DEFAULTS: dict[str, Any] = {}  # TRL's own: KL coefficient 0.05, rate 1e-6


def run(context: StageContext) -> StageReport:
    """Return the parent, tuned so that answers better than the others to their prompt become likelier."""
    return reinforce(context, "RLOO", DEFAULTS)
