"""A pull towards the stage before: the divergence of the model's next-token distribution from that stage's.

Usage: `cpt: {methods: {self_distillation: {weight: 0.5, temperature: 1.0}}}`.

Learning without forgetting (Li and Hoiem 2016, arXiv 1606.09282, equation 2) with the teacher of a language model: the
stage that this one continues from runs beside, frozen. With p the teacher's probabilities and q the model's, both at a
temperature T, the term is weight T^2 KL(p || q), the forward direction, or with `direction: reverse` KL(q || p). T^2
keeps the size of the gradient (Hinton et al. 2015, arXiv 1503.02531, section 2). Positions without a label are left
out, as in the loss of the next token.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from common.config.methods import LossBatch, LossMethod, MethodSettings


class SelfDistillationSettings(MethodSettings):
    """How strong the pull is, and of which shape."""

    weight: float = Field(0.5, gt=0, description="of the term, beside the loss of the next token with weight 1")
    temperature: float = Field(1.0, gt=0, le=100, description="that both distributions are flattened by")
    direction: Literal["forward", "reverse"] = Field(
        "forward", description="forward: KL(teacher || model), which covers all of it; reverse: KL(model || teacher)"
    )


def divergence(logits_NV: Any, teacher_NV: Any, settings: SelfDistillationSettings) -> Any:
    """Return (N,) KL divergences in float32, at the temperature and without the weight."""
    import torch

    q_NV = torch.log_softmax(logits_NV.float() / settings.temperature, dim=-1)
    p_NV = torch.log_softmax(teacher_NV.float() / settings.temperature, dim=-1)
    if settings.direction == "reverse":
        p_NV, q_NV = q_NV, p_NV
    return (p_NV.exp() * (p_NV - q_NV)).sum(dim=-1)


def term(batch: LossBatch, settings: SelfDistillationSettings) -> tuple[Any, dict[str, Any]]:
    """Return the weighted sum over the positions that are learned, and the plain sum of the divergences."""
    learned_BT = batch.next_BT != -100
    found_N = divergence(batch.logits_BTV[learned_BT], batch.teacher_BTV[learned_BT], settings)  # type: ignore[index] # a teacher was asked for
    total = found_N.sum()
    return settings.weight * settings.temperature**2 * total, {"kl": total.detach()}


METHOD = LossMethod(
    name="self_distillation", settings=SelfDistillationSettings, term=term, teacher=True,
    phrase="a pull towards the next-token distribution of the stage before (KL divergence)",
    paper="arXiv 1606.09282, equation 2", ours="the weight",
)  # fmt: skip
