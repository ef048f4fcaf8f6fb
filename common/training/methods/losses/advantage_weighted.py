"""Advantage-weighted regression: a document's loss weighs by how much its reward is above what the model expects.

Usage: `cpt: {methods: {advantage_weighted: {by: toxicity, beta: 10}}}`, with a block `score` that gives `toxicity`.

AWR as Korbak et al. 2023 (arXiv 2302.08582), section 2, use it in pretraining (Peng et al. 2019, arXiv 1910.00177).
With p the probability of the token that follows, R the reward of its document (less the score; with `better: higher`
the score itself), and V the value that a linear head reads from the last hidden state of the position,

    A = R - V
    L = alpha min(exp(A / beta), 1000) (-log p) + (1 - alpha) (V - R)^2

A passes no gradient. alpha = 0.5, beta = 10 and the limit 1000 are those of the paper's code. There each sentence has a
score; here it is that of the document. Replay has none: its A is 0, and it teaches no value. Both sums are divided by
all positions that are learned, those of replay too (ours), so that the value learns more slowly beside more replay. The
head begins at zero, so that the first weights are those of `reward_weighted`, and is not part of the result.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from common.config.methods import LossBatch, LossMethod, MethodSettings
from common.config.names import NonEmpty
from common.training.methods.losses.reward_weighted import HIGHEST
from common.training.methods.pieces import sum_of_scored


class AdvantageWeightedSettings(MethodSettings):
    """Which score is the reward, how strongly it weighs, and how much the value is learned beside."""

    by: NonEmpty = Field("toxicity", description="score that a block leaves on rows, such as a function of score")
    better: Literal["lower", "higher"] = Field("lower", description="which scores are better; lower: the reward is -R")
    beta: float = Field(10.0, gt=0, description="that advantages are divided by, in units of the score")
    alpha: float = Field(0.5, gt=0, le=1, description="share of the loss of the next token; the rest is the value's")


def head(hidden_size: int, settings: AdvantageWeightedSettings) -> Any:
    """Return what reads a value from a hidden state."""
    import torch

    found = torch.nn.Linear(hidden_size, 1)
    torch.nn.init.zeros_(found.weight)
    torch.nn.init.zeros_(found.bias)
    return found


def term(batch: LossBatch, settings: AdvantageWeightedSettings) -> tuple[Any, dict[str, Any]]:
    """Return the weighted sum over the positions that are learned, and the sums of the weights and of the errors."""
    import torch
    from torch.nn.functional import cross_entropy

    scores_BT = batch.scores[settings.by].float()
    rewards_BT = scores_BT if settings.better == "higher" else -scores_BT
    values_BT = batch.head(batch.outputs.hidden_states[-1].float()).squeeze(-1)
    learned_BT = batch.next_BT != -100
    scored_BT = learned_BT & ~torch.isnan(rewards_BT)
    advantages_BT = torch.where(scored_BT, rewards_BT - values_BT.detach(), 0.0)
    weights_BT = torch.exp(advantages_BT / settings.beta).clamp(max=HIGHEST)

    def each(logits_NV: Any, next_N: Any, weights_N: Any) -> Any:
        return weights_N * cross_entropy(logits_NV.float(), next_N, reduction="none")

    weighted = sum_of_scored(batch, weights_BT, each)
    error = ((values_BT - torch.where(scored_BT, rewards_BT, 0.0)) ** 2 * scored_BT).sum()  # a gradient in every batch
    measured = {"weight": (weights_BT * learned_BT).sum(), "error": error.detach()}
    return settings.alpha * weighted + (1 - settings.alpha) * error, measured


def problem(own: AdvantageWeightedSettings, stage: Any) -> str:
    """Say why a stage cannot use it, or nothing."""
    if stage.peft != "full":
        return f"a value is learned beside all weights, and peft={stage.peft} keeps an adapter alone. Use peft=full"
    return ""


METHOD = LossMethod(
    name="advantage_weighted", settings=AdvantageWeightedSettings, term=term, replaces=True, head=head, problem=problem,
    forward={"output_hidden_states": True},
    excludes=("unlikelihood", "reward_weighted"), scores=lambda own: (own.by,),
    phrase="the loss of each document weighs by its advantage over a learned value (AWR)",
    paper="arXiv 2302.08582, section 2; arXiv 1910.00177",
    ours="scores of documents; the head begins at zero; the value's error is divided by all positions, replay's too",
)  # fmt: skip
