"""AdamS: Adam that lets the weights outside of the 2:4 pattern decay to zero while it trains.

Usage: `sparse: {methods: {adams: {decay: 4.0e-7}}}`, of a stage of kind `prune`, which has it on in any case.

CAST (Huang et al. 2025, arXiv 2509.25996). With g the gradient, t the step of T, and sign(theta) the sign of a weight:

    mu_t    = beta1 mu + (1 - beta1) g
    mu~_t   = (1 - t/T) mu_t + t/T lambda sign(theta)  outside of the pattern, mu_t elsewhere
    v_t     = beta2 v + (1 - beta2) mu~_t^2
    theta  -= gamma_t (mu~_t / (1 - beta1^t)) / (sqrt(v_t / (1 - beta2^t)) + eps)

So the decay takes over from the gradient, at Adam's own scale. The pattern is that of the weights' magnitudes every 10
steps. The forward pass is that of all weights. Other layers, biases, norms and scales get mu_t; as v_t is made of mu_t
and not of g, which is noisier, steps are larger than AdamW's at the same rate, the first ones 1 / (1 - beta1) times, so
warm up. Decoupled weight decay (`train.weight_decay`) is ours, and scales have none.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from pydantic import Field

from common.config.methods import MethodSettings, OptimizerMethod, ScheduleMethod, chosen
from common.config.pruning import PruneSettings
from common.models.sparsity.masks import mask_of, scaled_weights

if TYPE_CHECKING:
    from torch import Tensor

MASK, PRODUCT = 1.0, 4.0  # bytes of a weight: its place in the pattern; its product with the scale in a forward pass
LOWEST = 0.5  # share of the peak that a rate must fall to


class AdamsSettings(MethodSettings):
    """How strong the decay is, and after how many steps the pattern is drawn again."""

    decay: float = Field(
        4e-7, gt=0, description="lambda, against the gradient of a weight; a small model's gradients are larger"
    )
    every: int = Field(10, ge=1, description="optimizer steps between two patterns")


def update(
    weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, mask: Tensor | None, *, step: int, steps: int,
    rate: float, betas: tuple[float, float], eps: float, decay: float,
) -> None:  # fmt: skip
    """Take step `step` of `steps`, from 1, in place: the equations above. Without a mask nothing decays."""
    import torch

    mean.mul_(betas[0]).add_(gradient, alpha=1 - betas[0])
    moved = mean
    if mask is not None:
        share = min(1.0, step / steps)
        fading = (1 - share) * mean + share * decay * weight.sign()
        moved = torch.where(mask, mean, fading)
    square.mul_(betas[1]).addcmul_(moved, moved, value=1 - betas[1])
    root = (square / (1 - betas[1] ** step)).sqrt_().add_(eps)
    weight.addcdiv_(moved, root, value=-rate / (1 - betas[0] ** step))


@functools.cache
def optimizer_class() -> type[Any]:
    """Return AdamS as an optimizer of torch; a function, so that importing this module does not import torch."""
    import torch

    class AdamS(torch.optim.Optimizer):  # type: ignore[misc] # mypy takes torch as untyped
        """Groups with `masked` decay outside of the pattern, which is part of their state."""

        @torch.no_grad()  # type: ignore[untyped-decorator] # as above
        def step(self, closure: Any = None) -> None:
            assert closure is None, "nothing here asks for one"
            for group in self.param_groups:
                for weight in group["params"]:
                    if weight.grad is not None:
                        self._step(group, weight)

        def _step(self, group: dict[str, Any], weight: Any) -> None:
            state = self.state[weight]
            if not state:
                state |= {"step": 0, "mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
            if group["masked"]:
                if state["step"] % group["every"] == 0:
                    state["mask"] = mask_of(weight)
                state["mask"] = state["mask"].bool()  # torch reads states back in the type of their weight
            state["step"] += 1
            if group["weight_decay"]:
                weight.mul_(1 - group["lr"] * group["weight_decay"])
            update(
                weight, weight.grad, state["mean"], state["square"], state.get("mask"), step=state["step"],
                steps=group["steps"], rate=group["lr"], betas=group["betas"], eps=group["eps"], decay=group["decay"],
            )  # fmt: skip

    return AdamS


def optimizer(made: Any, model: Any, own: AdamsSettings, steps: int) -> Any:
    """Return AdamS in the place of an AdamW, over the same weights with its rate, betas and eps."""
    masked = {id(weight) for weight in scaled_weights(model).values()}
    scales = {id(weight) for name, weight in model.named_parameters() if name.endswith(".scale")}
    groups = []
    for group in made.param_groups:
        kept = {key: group[key] for key in ("lr", "betas", "eps", "weight_decay")}
        parts: dict[tuple[bool, bool], list[Any]] = {}
        for weight in group["params"]:
            parts.setdefault((id(weight) in masked, id(weight) in scales), []).append(weight)
        for (is_masked, is_scale), weights in parts.items():
            decay = 0.0 if is_scale else kept["weight_decay"]
            groups.append({**kept, "params": weights, "masked": is_masked, "weight_decay": decay})
    return optimizer_class()(groups, {"every": own.every, "steps": steps, "decay": own.decay})


def misfit(steps: int, own: AdamsSettings, stage: Any) -> str:
    """Say that a schedule method leaves the rate of the last step too high, or nothing."""
    ends = [
        given.multiplier(steps - 1, steps, its) for given, its in chosen(stage) if isinstance(given, ScheduleMethod)
    ]
    return _too_high(ends[0]) if ends else ""


def _too_high(last: float) -> str:
    """Say that a share of the peak is no rate to end at, or nothing."""
    if last <= LOWEST:
        return ""
    return (
        f"the rate ends at {last:g} of its peak, and weights come to zero only as it falls; set a schedule that "
        "decays, such as schedule.kind=cosine with schedule.floor=0"
    )


def problem(own: AdamsSettings, stage: Any) -> str:
    """Say why a stage cannot let weights decay, or nothing."""
    if not isinstance(stage, PruneSettings):
        return "it is for stages of kind prune, which cut what has decayed. Leave it out"
    plain = not any(isinstance(method, ScheduleMethod) for method, _ in chosen(stage))
    if plain and (high := _too_high(1.0 if stage.schedule.kind == "constant" else stage.schedule.floor)):
        return high
    if (name := str(stage.train.get("optim", "adamw_torch"))).partition("_")[2].removesuffix("_fused") != "torch":
        return f"it is the optimizer itself, and train.optim is {name}; remove that"
    return ""


METHOD = OptimizerMethod(
    name="adams", settings=AdamsSettings, optimizer=optimizer, problem=problem, misfit=misfit,
    excludes=("reptile", "unit_rates", "keep_zeros"), bytes_per_weight=lambda own: MASK + PRODUCT,
    phrase="weights outside of the 2:4 pattern decay to zero at Adam's own scale (AdamS of CAST)",
    paper="arXiv 2509.25996", ours="which linear layers have the pattern; weight decay, where it is set",
)  # fmt: skip
