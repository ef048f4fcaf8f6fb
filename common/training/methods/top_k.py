"""Distributions of which K tokens are known by themselves, and all others together.

Usage: `ids_NK, log_probs_NK, rest_N = top_k(teacher_NV, 16)`; `model_NC = with_rest(logits_NV, ids_NK)`.

Tokens that are taken together lose what tells them apart, so a divergence of such distributions is at most that of the
whole ones (data processing inequality: Cover and Thomas 2006, Elements of Information Theory, section 2.8). With all
tokens of the vocabulary there are no others, and it is the same.
Shapes: N positions, V vocabulary, K tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.config.methods import KeptLogits
from common.training.rows.shards import TEACHER
from common.training.rows.taught import IDS, LOG_PROBS, REST

LEAST = -100.0  # of the logarithm of what is left; a probability of e^-100 is none in float32


def top_k(logits_NV: Any, k: int) -> tuple[Any, Any, Any]:
    """Return the k most likely tokens (N, K), their log-probabilities, and the logarithm of all others' sum (N,)."""
    ids_NK = logits_NV.topk(k, dim=-1).indices
    log_probs_NC = with_rest(logits_NV, ids_NK)
    rest_N = log_probs_NC[:, k] if log_probs_NC.shape[-1] > k else log_probs_NC.new_full((len(ids_NK),), LEAST)
    return ids_NK, log_probs_NC[:, :k], rest_N.clamp(min=LEAST)


def with_rest(logits_NV: Any, ids_NK: Any) -> Any:
    """Return the log-probabilities of some tokens and, last, of all others together: (N, K + 1), or (N, V) of all."""
    import torch

    total_N1 = logits_NV.logsumexp(dim=-1, keepdim=True)
    log_probs_NK = logits_NV.gather(-1, ids_NK) - total_N1
    if ids_NK.shape[-1] == logits_NV.shape[-1]:
        return log_probs_NK
    others_N1 = logits_NV.scatter(-1, ids_NK, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return torch.cat([log_probs_NK, others_N1 - total_N1], dim=-1)


def too_many(stage: str, k: int, vocabulary: int) -> str:
    """Return the error for more tokens than a vocabulary has."""
    return f"{stage}.methods: top_k={k}, and the vocabulary has {vocabulary} tokens. Use at most {vocabulary}."


def kept_in(columns: Mapping[str, Any]) -> KeptLogits:
    """Return what columns of a batch say of the teacher."""
    return KeptLogits(*(columns[f"{TEACHER}{name}"] for name in (IDS, LOG_PROBS, REST)))
