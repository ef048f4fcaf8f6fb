"""A pull towards the stage before: the divergence of the model's next-token distribution from that stage's.

Usage: `cpt: {methods: {self_distillation: {weight: 0.5, temperature: 1.0}}}`, or with `top_k: 32`.

Learning without forgetting (Li and Hoiem 2016, arXiv 1606.09282, equation 2) with the teacher of a language model: the
stage that this one continues from runs beside, frozen. With p the teacher's probabilities and q the model's, both at a
temperature T, the term is weight T^2 KL(p || q), the forward direction, or with `direction: reverse` KL(q || p). T^2
keeps the size of the gradient (Hinton et al. 2015, arXiv 1503.02531, section 2). Positions without a label are left
out, as in the loss of the next token. With `share: s` the loss is s T^2 KL + (1 - s) that of the next token.

With `top_k` the teacher reads each row once, before the first step, and is gone while the model trains. p and q are
then distributions over its K most likely tokens and one bucket for all others (`common.training.methods.top_k`): a
lower bound of the same divergence, and equal to it where K is the whole vocabulary. That is ours.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from common.config.methods import LossBatch, LossMethod, MethodSettings
from common.training.methods.pieces import kl, sum_of_kept, sum_over_learned
from common.training.methods.top_k import bucket_kl, problem_of_keeping


class SelfDistillationSettings(MethodSettings):
    """How strong the pull is, and of which shape."""

    weight: float = Field(0.5, gt=0, description="of the term, beside the loss of the next token with weight 1")
    share: float | None = Field(
        None, gt=0, lt=1, description="of the term, where the loss of the next token has the rest; in place of weight"
    )
    temperature: float = Field(1.0, gt=0, le=100, description="that both distributions are flattened by")
    direction: Literal["forward", "reverse"] = Field(
        "forward", description="forward: KL(teacher || model), which covers all of it; reverse: KL(model || teacher)"
    )
    top_k: int | None = Field(
        None, ge=1, description="tokens whose probabilities the teacher leaves at each position before the first step, "
        "and one bucket for all others; none: it runs beside and leaves all",
    )  # fmt: skip


def term(batch: LossBatch, settings: SelfDistillationSettings) -> tuple[Any, dict[str, Any]]:
    """Return the weighted sum over the positions that are learned, and the plain sum of the divergences."""
    temperature, forward = settings.temperature, settings.direction == "forward"

    def each(logits_NV: Any, teacher_NV: Any, next_N: Any) -> Any:
        model_NV, stage_NV = logits_NV.float() / temperature, teacher_NV.float() / temperature
        return kl(stage_NV, model_NV) if forward else kl(model_NV, stage_NV)

    def each_kept(logits_NV: Any, ids_NK: Any, log_probs_NK: Any, rest_N: Any) -> Any:
        return bucket_kl(logits_NV.float(), ids_NK, log_probs_NK, rest_N, forward=forward)

    total = sum_over_learned(batch, each) if settings.top_k is None else sum_of_kept(batch, each_kept)
    weight = settings.weight if settings.share is None else settings.share
    return weight * temperature**2 * total, {"kl": total.detach()}


def next_token(settings: SelfDistillationSettings) -> float:
    """Return the weight of the loss of the next token beside the term."""
    return 1.0 if settings.share is None else 1.0 - settings.share


def problem(own: SelfDistillationSettings, stage: Any) -> str:
    """Say which of its settings do not go together, or what of the stage does not go with them."""
    if own.share is not None and own.weight != SelfDistillationSettings().weight:
        return f"share is {own.share:.4g} and weight {own.weight:g}, and each says how strong the pull is; keep one"
    if own.top_k is not None and own.temperature != 1:
        return (
            f"top_k={own.top_k} with temperature={own.temperature:g}: what is kept of the teacher is at temperature 1, "
            "and its bucket cannot be flattened afterwards. Leave one of them out"
        )
    return problem_of_keeping(own.top_k, stage)


METHOD = LossMethod(
    name="self_distillation", settings=SelfDistillationSettings, term=term, teacher=True,
    next_token=next_token, keeps=lambda own: own.top_k or 0, problem=problem,
    phrase="a pull towards the next-token distribution of the stage before (KL divergence)",
    paper="arXiv 1606.09282, equation 2; share: CAST, arXiv 2509.25996", ours="the weight, and top_k",
)  # fmt: skip
