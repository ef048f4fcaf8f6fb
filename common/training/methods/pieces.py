"""Losses over all logits in pieces, so that what they make in between is never there for all positions at once.

Usage: `total = sum_over_learned(batch, lambda logits_NV, teacher_NV, next_N: ...)`.

Pieces are computed again for the backward pass. Shapes: N positions that are learned, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from common.config.methods import LossBatch
from common.cost.activations import PIECE  # logits of a piece; fewer are computed at once, and kept


def sum_over_learned(batch: LossBatch, each: Callable[[Any, Any, Any], Any], most: int = PIECE) -> Any:
    """Return the sum of what `each` gives, (N,), for the logits, the teacher's and the next tokens that are learned."""
    assert batch.teacher_BTV is not None, "a teacher was asked for"
    return _in_pieces([batch.logits_BTV, batch.teacher_BTV, batch.next_BT], batch.next_BT, each, most)


def sum_of_scored(
    batch: LossBatch, scores_BT: Any, each: Callable[[Any, Any, Any], Any], most: int = PIECE
) -> Any:  # fmt: skip
    """Return the same for the logits, the next tokens and the scores of their documents."""
    return _in_pieces([batch.logits_BTV, batch.next_BT, scores_BT], batch.next_BT, each, most)


def sum_of_kept(batch: LossBatch, each: Callable[[Any, Any, Any, Any], Any], most: int = PIECE) -> Any:
    """Return the same for the logits, and the tokens, log-probabilities and rest that are kept of the teacher's."""
    assert batch.kept is not None, "the teacher has read the rows"
    return _in_pieces([batch.logits_BTV, *batch.kept], batch.next_BT, each, most)


def _in_pieces(tensors: Sequence[Any], next_BT: Any, each: Callable[..., Any], most: int) -> Any:
    """Return the sum of what `each` gives for some tensors, the logits first, at the positions that are learned."""
    from torch.utils.checkpoint import checkpoint

    flat = [tensor.flatten(0, 1) for tensor in (*tensors, next_BT)]

    def summed(*piece: Any) -> Any:
        learned_P = piece[-1] != -100
        return each(*(tensor[learned_P] for tensor in piece[:-1])).sum()

    places, vocabulary = flat[0].shape
    rows = max(1, most // vocabulary)
    if places <= rows:
        return summed(*flat)
    pieces = zip(*(tensor.split(rows) for tensor in flat), strict=True)
    return sum(checkpoint(summed, *piece, use_reentrant=False) for piece in pieces)


def kl(p_NV: Any, q_NV: Any) -> Any:
    """Return (N,) divergences KL(p || q) of two distributions whose logits are given, in float32."""
    import torch
    from torch.nn.functional import kl_div

    log_p_NV, log_q_NV = (torch.log_softmax(logits_NV.float(), dim=-1) for logits_NV in (p_NV, q_NV))
    return kl_div(log_q_NV, log_p_NV, reduction="none", log_target=True).sum(dim=-1)
