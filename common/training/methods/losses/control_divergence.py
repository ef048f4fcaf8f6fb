"""A pull of the copies that Control LLM trains towards the frozen layers beside them.

Usage: `sft: {methods: {control_divergence: {scale: 0.5}}}`; behind `expand` with `method: control_llm` it is on anyway.

Control LLM (arXiv 2501.10979) and its authors' code. With h_p the output of a frozen layer and h_e that of its copy,
both (B, T, H), at each position a pair is away by
- mse: mean_H (h_e - h_p)^2;
- cosine: smoothL1(relu(1 - cos(h_p, h_e))), where smoothL1(x) is x^2 / 2 below 1 and x - 1/2 from there on.
No gradient passes through h_p here. The term is `scale` times the mean over the pairs, summed over the positions that
are learned. So it is the same however a step is split. The authors' code takes the mean over all positions of a batch.
The method also keeps each pair's running mean of w, over all processes, which a later stage collapses with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from common.config.growth import growth_among
from common.config.methods import Ancestor, LossBatch, LossMethod, MethodSettings
from common.models.growth.pairs import pairs_of
from common.training.distributed import ranks

if TYPE_CHECKING:
    from torch import Tensor


class ControlDivergenceSettings(MethodSettings):
    """How far a copy is from its layer, and how much that counts."""

    form: Literal["mse", "cosine"] | None = Field(
        None, description="mse: squared distance; cosine: angle alone; none: mse in sft stages, cosine in cpt stages"
    )
    scale: float = Field(1.0, ge=0, description="of the term, beside the loss of the next token with weight 1; 0: off")


def divergence(h_p: Tensor, h_e: Tensor, form: str) -> Tensor:
    """Return how far a copy's output is from its layer's at each position, (B, T); both are (B, T, H)."""
    import torch
    from torch.nn import functional

    h_p, h_e = h_p.detach().float(), h_e.float()
    if form == "mse":
        return (h_e - h_p).pow(2).mean(dim=-1)
    away_BT = functional.relu(1 - functional.cosine_similarity(h_p, h_e, dim=-1, eps=1e-8))
    return functional.smooth_l1_loss(away_BT, torch.zeros_like(away_BT), reduction="none")


def term(batch: LossBatch, settings: ControlDivergenceSettings) -> tuple[Any, dict[str, Any]]:
    """Return the term, as a sum over the learned positions like that of every loss, and what to log."""
    import torch

    pairs = pairs_of(batch.model)
    learned_BT = batch.next_BT != -100
    form, kept = settings.form or "cosine", [pair.kept for pair in pairs]
    logged = {"w": learned_BT.sum() * follow(pairs).mean()}
    for pair in pairs:
        pair.kept = None
    if not settings.scale:
        return 0.0, logged
    away_KBT = torch.stack([divergence(h_p, h_e, form) for h_p, h_e, _ in kept])
    away = away_KBT.mean(dim=0)[learned_BT].sum()
    return settings.scale * away, {"divergence": away.detach(), **logged}


def follow(pairs: Sequence[Any]) -> Tensor:
    """Move each pair's running mean of w by its forward pass, over all processes; return these means, (pairs,)."""
    import torch

    with torch.no_grad():
        w_K = torch.stack([pair.kept[2].float().mean() for pair in pairs])
        if ranks.size() > 1:
            torch.distributed.all_reduce(w_K)
            w_K /= ranks.size()
        for pair, w in zip(pairs, w_K, strict=True):
            pair.passes += 1
            pair.mean_w += (w - pair.mean_w) / pair.passes
    return w_K


def complete(own: ControlDivergenceSettings, before: Sequence[Ancestor]) -> ControlDivergenceSettings:
    """Return the settings. Raises ValueError where no layer has a copy beside it."""
    growth = growth_among(one.settings for one in before)
    if growth is None or not growth.paired:
        raise ValueError(
            "no layer has a copy beside it here. Put `expand: {kind: expand, from: <stage>}` with method control_llm "
            "before the stage, or remove this method."
        )
    return own


def finish(model: Any, tokenizer: Any, own: ControlDivergenceSettings) -> None:
    """Let the training of a later stage begin its own mean of w."""
    for pair in pairs_of(model):
        pair.passes.zero_()


METHOD = LossMethod(
    name="control_divergence", settings=ControlDivergenceSettings, term=term, complete=complete, finish=finish,
    charted=("divergence", "w"),
    phrase="a pull of copies towards the frozen layers beside them",
    paper="arXiv 2501.10979 and its authors' code",
    ours="w is averaged over a training, not over an evaluation; the pull counts learned positions alone, and passes "
    "no gradient through frozen layers",
)  # fmt: skip
