"""Reward-weighted regression: the loss of each document weighs by the exponential of its reward.

Usage: `cpt: {methods: {reward_weighted: {by: toxicity, beta: 10}}}`, with a block `score` that gives `toxicity`.

RWR as Korbak et al. 2023 (arXiv 2302.08582), section 2, use it in pretraining (Peters and Schaal 2007). With p the
probability of the token that follows, R the score of its document, and the reward -R (R with `better: higher`)

    L = - min(exp(-R / beta), 1000) log p

beta = 10 and the limit 1000 are those of the paper's code. There each sentence has a score; here it is that of the
document. Replay has none, and weighs 1. AWR, which subtracts a value that the model learns, is `advantage_weighted`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from common.config.methods import LossBatch, LossMethod, MethodSettings
from common.config.names import NonEmpty
from common.training.methods.pieces import sum_of_scored

HIGHEST = 1000.0  # weight


class RewardWeightedSettings(MethodSettings):
    """Which score is the reward, and how strongly it weighs."""

    by: NonEmpty = Field("toxicity", description="score that a block leaves on rows, such as a function of score")
    better: Literal["lower", "higher"] = Field("lower", description="which scores are better; lower: the reward is -R")
    beta: float = Field(10.0, gt=0, description="that rewards are divided by, in units of the score")


def weight(scores: Any, settings: RewardWeightedSettings) -> Any:
    """Return the weights of positions by the scores of their documents; 1 where there is none (NaN)."""
    import torch

    rewards = scores if settings.better == "higher" else -scores
    return torch.where(torch.isnan(rewards), 1.0, torch.exp(rewards.float() / settings.beta).clamp(max=HIGHEST))


def term(batch: LossBatch, settings: RewardWeightedSettings) -> tuple[Any, dict[str, Any]]:
    """Return the weighted sum over the positions that are learned, and the sum of the weights."""
    from torch.nn.functional import cross_entropy

    def each(logits_NV: Any, next_N: Any, scores_N: Any) -> Any:
        return weight(scores_N, settings) * cross_entropy(logits_NV.float(), next_N, reduction="none")

    scores_BT = batch.scores[settings.by]
    return sum_of_scored(batch, scores_BT, each), {"weight": weight(scores_BT, settings)[batch.next_BT != -100].sum()}


METHOD = LossMethod(
    name="reward_weighted", settings=RewardWeightedSettings, term=term, replaces=True, excludes=("unlikelihood",),
    scores=lambda own: (own.by,),
    phrase="the loss of each document weighs by the exponential of its reward (RWR)",
    paper="arXiv 2302.08582, section 2", ours="scores of documents in place of sentences",
)  # fmt: skip
