"""Reinforcement learning with GRPO (Shao et al. 2024, arXiv 2402.03300) on rewards that are checked or modelled.

Usage: named by a pipeline as `grpo: {kind: grpo, from: sft}`; a domain names its rewards in stages.yaml.
"""

from __future__ import annotations

from common.config.answering import GrpoSettings
from common.config.kinds import Kind
from common.stages.rewarded import check, reinforce

KIND = Kind(
    name="grpo", settings=GrpoSettings, run=reinforce, check=check, roles=("prompts",),
    reads=("sample", "reward model"), shareable=True, online=True,
    # Section 4.2 of the paper.
    defaults={"beta": 0.04, "learning_rate": 1.0e-6},
    phrase="group relative policy optimisation", part="alignment",
)  # fmt: skip
