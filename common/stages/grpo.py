"""Reinforcement learning with GRPO (Shao et al. 2024, arXiv 2402.03300) on rewards that are checked or modelled.

Usage: named by a pipeline as `grpo: {kind: grpo, from: sft}`; a domain names its rewards in stages.yaml.
"""

from __future__ import annotations

from common.cost.workload import BETA
from common.stage import StageContext, StageReport
from common.stages.rewarded import reinforce

# Section 4.2 of the paper: rate 1e-6 and KL coefficient 0.04, where nothing else is said.
DEFAULTS = {"beta": BETA["grpo"], "learning_rate": 1.0e-6}


def run(context: StageContext) -> StageReport:
    """Return the parent, tuned so that answers better than their siblings become likelier."""
    return reinforce(context, "GRPO", DEFAULTS)
