"""Distributions of which K tokens are known by themselves, and all others together.

Usage: `ids_NK, log_probs_NK, rest_N = top_k(teacher_NV, 16)`, then `bucket_kl(logits_NV, ids_NK, …)`.

Tokens that are taken together lose what tells them apart, so a divergence of such distributions is at most that of the
whole ones (data processing inequality: Cover and Thomas 2006, Elements of Information Theory, section 2.8). With all
tokens of the vocabulary there are no others, and it is the same.
Shapes: N positions, V vocabulary, K tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.config.methods import KeptLogits, LossMethod, RowsMethod, chosen
from common.config.stages import TrainingSettings
from common.errors import ConfigError
from common.training.rows.shards import TEACHER
from common.training.rows.taught import IDS, LOG_PROBS, REST


def top_k(logits_NV: Any, k: int) -> tuple[Any, Any, Any]:
    """Return the k most likely tokens (N, K), their log-probabilities, and the logarithm of all others' sum (N,)."""
    import torch

    ids_NK = logits_NV.topk(k, dim=-1).indices
    log_probs_NC = with_rest(logits_NV, ids_NK)
    rest_N = log_probs_NC[:, k] if log_probs_NC.shape[-1] > k else log_probs_NC.new_full((len(ids_NK),), -torch.inf)
    return ids_NK, log_probs_NC[:, :k], rest_N


def with_rest(logits_NV: Any, ids_NK: Any) -> Any:
    """Return the log-probabilities of some tokens and, last, of all others together: (N, K + 1), or (N, V) of all."""
    import torch

    total_N1 = logits_NV.logsumexp(dim=-1, keepdim=True)
    log_probs_NK = logits_NV.gather(-1, ids_NK) - total_N1
    if ids_NK.shape[-1] == logits_NV.shape[-1]:
        return log_probs_NK
    others_N1 = logits_NV.scatter(-1, ids_NK, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return torch.cat([log_probs_NK, others_N1 - total_N1], dim=-1)


def bucket_kl(logits_NV: Any, ids_NK: Any, log_probs_NK: Any, rest_N: Any, *, forward: bool = True) -> Any:
    """Return (N,) divergences of the teacher's K tokens and rest from the model's, or with `forward=False` back.

    With b the bucket of all tokens that are not among the K: sum over K and b of p (log p - log q).
    """
    import torch
    from torch.nn.functional import kl_div

    model_NC = with_rest(logits_NV, ids_NK)
    whole = model_NC.shape[-1] == ids_NK.shape[-1]
    teacher_NC = log_probs_NK if whole else torch.cat([log_probs_NK, rest_N.unsqueeze(-1)], dim=-1)
    p_NC, q_NC = (teacher_NC, model_NC) if forward else (model_NC, teacher_NC)
    return kl_div(q_NC, p_NC, reduction="none", log_target=True).sum(dim=-1)


def problem_of_keeping(k: int | None, stage: TrainingSettings) -> str:
    """Say which method reads rows in another way than a teacher that has read them before, or nothing."""
    cuts = [method.name for method, _ in chosen(stage) if isinstance(method, RowsMethod) and method.parts is not None]
    if k is None or not cuts:
        return ""
    return (
        f"top_k={k} next to {cuts[0]}: the teacher reads each row once and whole, and {cuts[0]} cuts it in some steps. "
        "Leave one of them out"
    )


def check_top_k(stage: str, settings: TrainingSettings, vocabulary: int) -> None:
    """Check that no method keeps more tokens than a vocabulary has. Raises ConfigError."""
    for method, own in chosen(settings):
        if isinstance(method, LossMethod) and (k := method.keeps(own)) > vocabulary:
            raise ConfigError(
                f"{stage}.methods.{method.name}.top_k={k}: the vocabulary has {vocabulary} tokens. Use at most these."
            )


def kept_in(columns: Mapping[str, Any]) -> KeptLogits:
    """Return what columns of a batch say of the teacher."""
    return KeptLogits(*(columns[f"{TEACHER}{name}"] for name in (IDS, LOG_PROBS, REST)))
