"""Unlikelihood of bad documents: their tokens become less likely, and those of the others more, as usual.

Usage: `cpt: {methods: {unlikelihood: {by: toxicity, threshold: 0.00078}}}`, with a block `score` that gives `toxicity`.

Korbak et al. 2023 (arXiv 2302.08582), section 2, after Welleck et al. 2020 (arXiv 1908.04319), equation 4. With p the
probability of the token that follows and R the score of its document

    R <= t    - log p
    R > t     - alpha log(1 - p)

t = 7.8e-4 and alpha = 1 are those of the paper for toxicity. There each sentence has a score; here it is that of the
document. Replay has none, and is learned as usual. 1 - p is at least 1e-6, so that the loss stays finite: that is ours.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from common.config.methods import LossBatch, LossMethod, MethodSettings
from common.config.names import NonEmpty
from common.training.methods.pieces import sum_of_scored

LEAST = 1e-6  # of 1 - p


class UnlikelihoodSettings(MethodSettings):
    """What is bad, and how much that weighs."""

    by: NonEmpty = Field("toxicity", description="score that a block leaves on rows, such as a function of score")
    threshold: float = Field(7.8e-4, description="score above which a document is bad (t)")
    alpha: float = Field(1.0, ge=0, description="weight of the loss of bad documents")


def term(batch: LossBatch, settings: UnlikelihoodSettings) -> tuple[Any, dict[str, Any]]:
    """Return the sum over the positions that are learned, and of how many of them the document is bad."""
    import torch

    def each(logits_NV: Any, next_N: Any, scores_N: Any) -> Any:
        log_p_N = torch.log_softmax(logits_NV.float(), dim=-1).gather(-1, next_N[:, None])[:, 0]
        less_N = torch.log((-torch.expm1(log_p_N)).clamp(min=LEAST))  # log(1 - p)
        return torch.where(scores_N > settings.threshold, -settings.alpha * less_N, -log_p_N)

    scores_BT = batch.scores[settings.by]
    bad_BT = (batch.next_BT != -100) & (scores_BT > settings.threshold)
    return sum_of_scored(batch, scores_BT, each), {"bad": bad_BT.sum()}


METHOD = LossMethod(
    name="unlikelihood", settings=UnlikelihoodSettings, term=term, replaces=True, excludes=("reward_weighted",),
    scores=lambda own: (own.by,),
    phrase="tokens of documents that a score finds bad become less likely",
    paper="arXiv 2302.08582, section 2; arXiv 1908.04319, equation 4",
    ours="scores of documents in place of sentences, and the least 1 - p",
)  # fmt: skip
