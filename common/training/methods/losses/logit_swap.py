"""Mix-CPT's self-distillation with swapped logits: the stage before teaches, and the truth takes its first place.

Usage: `cpt: {methods: {logit_swap: {weight: 0.3}}}`, or with `top_k: 32`.

Jiang et al. 2024 (arXiv 2407.10804), logit swap self-distillation. Of each position, let z be the teacher's logits, m
their argmax and y the true next token. z_m and z_y change places (nothing does where m = y), and with p the softmax of
what that makes and q the model's distribution the loss is

    L = L_next_token + alpha KL(p || q)

So the model learns the new token with the confidence that the teacher had in its own, and keeps the rest of its
distribution. The weight 0.3 is that of a public re-implementation. The data form of the paper, instructions and
preferences as plain text, is a matter of sources.

With `top_k` the teacher reads each row once, before the first step, and leaves the K most likely tokens of p, y among
them, and a bucket of all others (`common.training.methods.top_k`): a lower bound of the same divergence. That is ours.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from common.config.methods import LossBatch, LossMethod, MethodSettings
from common.training.methods.pieces import kl, sum_of_kept, sum_over_learned
from common.training.methods.top_k import bucket_kl, problem_of_keeping


class LogitSwapSettings(MethodSettings):
    """How much the term weighs."""

    weight: float = Field(0.3, gt=0, description="of the term (alpha), beside the loss of the next token with weight 1")
    top_k: int | None = Field(
        None, ge=1, description="tokens whose swapped probabilities the teacher leaves at each position before the "
        "first step, and one bucket for all others; none: it runs beside and leaves all",
    )  # fmt: skip


def swapped(teacher_NV: Any, next_N: Any) -> Any:
    """Return the teacher's logits with the highest one and that of the true token in each other's place."""
    best_N1, next_N1 = teacher_NV.argmax(dim=-1, keepdim=True), next_N.unsqueeze(-1)
    highest_N1, true_N1 = teacher_NV.gather(-1, best_N1), teacher_NV.gather(-1, next_N1)
    return teacher_NV.scatter(-1, best_N1, true_N1).scatter(-1, next_N1, highest_N1)


def term(batch: LossBatch, settings: LogitSwapSettings) -> tuple[Any, dict[str, Any]]:
    """Return the weighted sum of the divergences, the plain one, and how often a teacher beside was wrong."""
    if settings.top_k is not None:
        total = sum_of_kept(batch, bucket_kl)
        return settings.weight * total, {"kl": total.detach()}
    total = sum_over_learned(batch, lambda logits, teacher, following: kl(swapped(teacher, following), logits))
    wrong_BT = (batch.next_BT != -100) & (batch.teacher_BTV.argmax(dim=-1) != batch.next_BT)  # type: ignore[union-attr] # a teacher was asked for
    return settings.weight * total, {"kl": total.detach(), "swapped": wrong_BT.sum()}


METHOD = LossMethod(
    name="logit_swap", settings=LogitSwapSettings, term=term, teacher=True,
    keeps=lambda own: own.top_k or 0, as_kept=swapped, problem=lambda own, stage: problem_of_keeping(own.top_k, stage),
    phrase="a pull towards the stage before, with the true token in the place of that stage's first choice",
    paper="arXiv 2407.10804, logit swap self-distillation", ours="the weight, of a public re-implementation, and top_k",
)  # fmt: skip
