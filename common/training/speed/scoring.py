"""Score answers inside TRL's trainers at the cost of the tokens that are scored, and of no padding.

Usage: `with scoring(run, train): trainer = DPOTrainer(...)`; its model and reference then score in this way.

TRL's preference and reward trainers ask the model itself for log-probabilities (`fused_lm_head=True`), so that wrappers
of the model (DDP, FSDP, peft) see an ordinary forward. Ours answers that call: sequences share rows, as in packing, so
that little of a batch is padding; answers to one prompt share that too, which is read once (as in arXiv 2410.20305);
the head is applied where a label is, in pieces that bound the memory of the logits; and what TRL measures over all
logits at every step is left out unless `run.token_metrics` asks for it. What it cannot do (capped logits, images,
losses of experts) goes to TRL's own head.
Shapes: B sequences of T tokens, R rows of W tokens, N scored tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.config.schema import RunSettings
from common.cost.activations import MOST_LOGITS
from common.training import patches
from common.training.patches import AddHead
from common.training.speed.attention import BY_POSITIONS
from common.training.speed.isolation import keeps_apart

if TYPE_CHECKING:
    from torch import Tensor

PADDING_WORTH_IT = 0.05  # share of a batch's places that sharing rows must save
# Sizes are rounded up to multiples of these, so that few shapes occur: kernels are prepared once for each, which on a
# CPU takes as long as the work of a small model.
STEP_WIDTH, STEP_SCORED = 16, 128
# What TRL measures over all logits at every step.
TOKEN_METRICS = ("entropy", "mean_token_accuracy", "logits/chosen", "logits/rejected")
# Options of GRPO that learn from the entropy.
NEED_ENTROPY = ("top_entropy_quantile", "entropy_coef", "use_adaptive_entropy")
HANDLED = {"input_ids", "attention_mask", "use_cache"}
# Keys of a model's configuration that change the logits behind the head.
SCALES = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")


def unmeasured(run: RunSettings, train: Mapping[str, Any]) -> frozenset[str]:
    """Return the metrics that are left out of a stage; TRL would log the zeros that stand in their place."""
    if run.token_metrics:
        return frozenset()
    return frozenset(TOKEN_METRICS) - ({"entropy"} if _needs_entropy(train) else set())


def _needs_entropy(train: Mapping[str, Any]) -> bool:
    return any(key in train for key in NEED_ENTROPY)


def scoring(run: RunSettings, train: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Let trainers that are built inside score by `add_head`, unless every metric of TRL's is asked for."""
    return patches.score_with(head_of(run, train))


def head_of(run: RunSettings, train: Mapping[str, Any]) -> AddHead:
    """Return what gives a model its head for scoring: ours, or TRL's where every metric of TRL's is asked for."""
    from trl.trainer.utils import add_fused_lm_head

    theirs: AddHead = add_fused_lm_head
    return functools.partial(add_head, theirs, entropy=_needs_entropy(train), lean=not run.token_metrics)


def add_head(
    theirs: AddHead, model: Any, temperature: float = 1.0, cast_lm_head_to_fp32: bool = False,
    outputs: Sequence[str] = ("log_probs",), *, entropy: bool = False, lean: bool = True,
) -> None:  # fmt: skip
    """Give a model TRL's head, and with `lean` ours before it, for calls that ours can answer."""
    from trl.trainer.utils import FusedCausalLMOutput

    patches.name_parts(model)
    theirs(model, temperature=temperature, cast_lm_head_to_fp32=cast_lm_head_to_fp32, outputs=tuple(outputs))
    config = model.config.get_text_config()
    scaled = any(getattr(config, key, None) is not None for key in SCALES)
    if not lean or "log_sum_sq_probs" in outputs or cast_lm_head_to_fp32 or scaled:
        return
    fallback = model.forward

    @functools.wraps(fallback)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        plain = not args and kwargs.keys() <= HANDLED and labels is not None
        if not (fused_lm_head and plain):
            given = {"labels": labels} if labels is not None else {}
            return fallback(*args, fused_lm_head=fused_lm_head, **given, **kwargs)
        mask_BT = labels[:, 1:] != -100
        hidden_NH = _hidden(self, kwargs["input_ids"], kwargs.get("attention_mask"), mask_BT)
        scores = _scores(self.get_output_embeddings(), hidden_NH, labels[:, 1:][mask_BT], temperature, entropy)
        log_probs_BT, entropy_BT = (x.new_zeros(mask_BT.shape).masked_scatter(mask_BT, x) for x in scores)
        nothing_BT = log_probs_BT.new_zeros(mask_BT.shape)
        return FusedCausalLMOutput(
            log_probs=log_probs_BT, label_mask=mask_BT, entropy=entropy_BT,
            mean_logits=nothing_BT, is_top1=nothing_BT.bool(),
        )  # fmt: skip

    model.forward = types.MethodType(forward, model)


def _hidden(model: Any, ids_BT: Tensor, attention_BT: Tensor | None, mask_BT: Tensor) -> Tensor:
    """Return (N, H), the last hidden states that predict the labelled tokens, row by row."""
    import torch

    layout = None
    if attention_BT is not None and keeps_apart(model):
        joint = model.config.get_text_config()._attn_implementation in BY_POSITIONS
        lengths = attention_BT.sum(1).tolist()
        layout = share_rows(lengths, *(prompts_of(ids_BT, attention_BT, mask_BT) if joint else ()))
    if layout is None or attention_BT is None:
        found: Any = model.base_model(input_ids=ids_BT, attention_mask=attention_BT, use_cache=False)
        hidden_BTH: Tensor = found.last_hidden_state
        return hidden_BTH[:, :-1][mask_BT]
    facts = (layout.rows, layout.starts, layout.prompts, layout.shared, layout.filled)
    rows_B, starts_B, prompts_B, shared_B, filled_R = (torch.tensor(one, device=ids_BT.device) for one in facts)
    # Where each real token goes in the flat (R * W) rows, wherever in its sequence the padding is. The tokens of a
    # prompt that is shared all go where it stands, each with the same number and position.
    order_BT = attention_BT.cumsum(1) - 1
    first_BT = torch.where(order_BT < shared_B[:, None], prompts_B[:, None], (starts_B - shared_B)[:, None])
    places_BT = rows_B[:, None] * layout.width + first_BT + order_BT
    real_BT = attention_BT.bool()
    left_RW = (torch.arange(layout.width, device=ids_BT.device) - filled_R[:, None]).clamp(min=0)
    shared = [ids_BT.new_zeros(layout.num_rows * layout.width), left_RW.flatten().to(ids_BT.dtype)]
    for flat, values_BT in zip(shared, (ids_BT, order_BT), strict=True):
        flat[places_BT[real_BT]] = values_BT[real_BT].to(flat.dtype)
    ids_RW, positions_RW = (flat.view(layout.num_rows, layout.width) for flat in shared)
    found = model.base_model(input_ids=ids_RW, position_ids=positions_RW, use_cache=False)
    hidden_RWH: Tensor = found.last_hidden_state
    return hidden_RWH.flatten(0, 1)[places_BT[:, :-1][mask_BT]]


def prompts_of(ids_BT: Tensor, attention_BT: Tensor, mask_BT: Tensor) -> tuple[list[int], list[int]]:
    """Return the first sequence with the same prompt, for each, and the tokens of that prompt.

    A prompt is what stands before the first label. A sequence whose prompt is its own, or empty, has itself and 0.
    """
    import torch

    number = len(ids_BT)
    if not mask_BT.any():
        return list(range(number)), [0] * number
    order_BT = torch.where(mask_BT, attention_BT[:, :-1].cumsum(1), attention_BT.shape[1])
    lengths = order_BT.min(1).values.tolist()
    real = torch.split(ids_BT[attention_BT.bool()].cpu(), attention_BT.sum(1).tolist())
    firsts: dict[tuple[int, ...], int] = {}
    owners = [
        firsts.setdefault(tuple(ids[:length].tolist()), number) if 0 < length < len(ids) else number
        for number, (ids, length) in enumerate(zip(real, lengths, strict=True))
    ]
    return owners, [0 if owner == number else lengths[number] for number, owner in enumerate(owners)]


@dataclass(frozen=True)
class Layout:
    """Where sequences lie that share rows, and how many rows there are, and how wide."""

    rows: list[int]  # of each sequence
    starts: list[int]  # the first place of a sequence, or of what it has beyond a shared prompt
    prompts: list[int]  # the first place of its prompt
    shared: list[int]  # tokens of that which stand with another sequence
    filled: list[int]  # places of each row that are taken
    num_rows: int
    width: int

    @property
    def places(self) -> int:
        return self.num_rows * self.width


def share_rows(
    lengths: Sequence[int], owners: Sequence[int] | None = None, shared: Sequence[int] | None = None
) -> Layout | None:
    """Put sequences into rows: by themselves, or each behind its owner and without what both share.

    Of both ways the one with fewer places; None where it saves too little of them.
    """
    number = len(lengths)
    found = _laid_out(lengths, range(number), [0] * number)
    if owners is not None and shared is not None and any(shared):
        found = min(found, _laid_out(lengths, owners, shared), key=lambda layout: layout.places)
    return found if found.places <= (1 - PADDING_WORTH_IT) * number * max(lengths) else None


def _laid_out(lengths: Sequence[int], owners: Sequence[int], shared: Sequence[int]) -> Layout:
    """Put each owner with what belongs to it into one row: first fit, the longest first, which gives the width.

    What a row has left over is read as one more document, and never scored.
    """
    together: dict[int, list[int]] = {}
    for number, owner in enumerate(owners):
        together.setdefault(owner, []).append(number)
    own = [length - less for length, less in zip(lengths, shared, strict=True)]
    total = {owner: sum(own[number] for number in members) for owner, members in together.items()}
    width = _rounded(max(total.values()), STEP_WIDTH)
    rows, starts, filled = [0] * len(lengths), [0] * len(lengths), list[int]()
    for owner in sorted(together, key=lambda owner: -total[owner]):
        row = next((r for r, used in enumerate(filled) if used + total[owner] <= width), len(filled))
        if row == len(filled):
            filled.append(0)
        for number in together[owner]:
            rows[number], starts[number] = row, filled[row]
            filled[row] += own[number]
    num_rows = _rounded(len(filled), max(1, len(lengths) // 8))
    filled += [0] * (num_rows - len(filled))
    return Layout(rows, starts, [starts[owner] for owner in owners], list(shared), filled, num_rows, width)


def _rounded(number: int, step: int) -> int:
    return -(-number // step) * step


def _scores(head: Any, hidden_NH: Tensor, labels_N: Tensor, temperature: float, entropy: bool) -> tuple[Tensor, Tensor]:
    """Return (N,) log-probabilities of the labels in nats, and the entropies of the distributions, or zeros."""
    import torch
    from torch.utils.checkpoint import checkpoint

    def piece(hidden_NH: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        logits_NV = head(hidden_NH).float() / temperature
        normal_N = torch.logsumexp(logits_NV, -1)
        picked_N = logits_NV.gather(-1, labels_N[:, None])[:, 0] - normal_N
        if not entropy:
            return picked_N, torch.zeros_like(picked_N)
        return picked_N, normal_N - (torch.softmax(logits_NV, -1) * logits_NV).sum(-1)

    number = len(labels_N)
    spare = _rounded(number, STEP_SCORED) - number
    hidden_NH = torch.nn.functional.pad(hidden_NH, (0, 0, 0, spare))
    labels_N = torch.nn.functional.pad(labels_N, (0, spare))
    size = max(1, MOST_LOGITS // head.weight.shape[0])
    if len(labels_N) <= size:
        log_probs_N, entropy_N = piece(hidden_NH, labels_N)
        return log_probs_N[:number], entropy_N[:number]
    pieces = [
        checkpoint(piece, hidden, labels, use_reentrant=False)
        for hidden, labels in zip(hidden_NH.split(size), labels_N.split(size), strict=True)
    ]
    log_probs_N, entropy_N = (torch.cat(parts)[:number] for parts in zip(*pieces, strict=True))
    return log_probs_N, entropy_N
