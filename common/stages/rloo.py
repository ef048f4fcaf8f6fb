"""Reinforcement learning with RLOO (Ahmadian et al. 2024, arXiv 2402.14740) on rewards that are checked or modelled.

Usage: named by a pipeline as `rloo: {kind: rloo, from: sft}`; a domain names its rewards in stages.yaml.
"""

from __future__ import annotations

from common.config.answering import RlooSettings
from common.config.kinds import Kind
from common.stages.rewarded import check, reinforce

KIND = Kind(
    name="rloo", settings=RlooSettings, run=reinforce, check=check, roles=("prompts",),
    reads=("sample", "reward model"), shareable=True, online=True,
    defaults={"beta": 0.05},  # TRL's own
    phrase="REINFORCE with the other answers as baseline", part="alignment",
)  # fmt: skip
