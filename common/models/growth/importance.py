"""How much each layer matters to general text: the loss that is added when a layer is passed over.

Usage: `found = layer_importance(model, batches)`; `least_important(found, 2)` are the two that ADEPT copies.

ADEPT (arXiv 2510.10071), stage 1: I(l) = L without layer l - L, both mean losses of a token over a corpus that probes
general competence; the output of a layer that is passed over is its input. The corpus is ours: replay text of the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Batch = tuple["Tensor", "Tensor"]  # input_ids and labels, (B, T); labels of padding are -100


def layer_importance(model: Any, batches: Sequence[Batch]) -> list[float]:
    """Return I(l) of every layer, in nats a token."""
    whole = mean_loss(model, batches)
    found = []
    for layer in model.model.layers:
        with passed_over(layer):
            found.append(mean_loss(model, batches) - whole)
    return found


def least_important(importance: Sequence[float], number: int) -> list[int]:
    """Return the layers of lowest importance, in their order; of equal ones the lower."""
    ranked = sorted(range(len(importance)), key=lambda layer: (importance[layer], layer))
    return sorted(ranked[:number])


@contextlib.contextmanager
def passed_over(layer: Any) -> Iterator[None]:
    """Let a layer output its input, within."""

    def skip(_: Any, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        hidden_BTH = given[0] if given else named["hidden_states"]
        return (hidden_BTH, *output[1:]) if isinstance(output, tuple) else hidden_BTH

    hook = layer.register_forward_hook(skip, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def mean_loss(model: Any, batches: Sequence[Batch]) -> float:
    """Return the mean loss of a token that is learned, over all batches alike."""
    import torch
    from torch.nn.functional import cross_entropy

    total, number, device = 0.0, 0, next(model.parameters()).device
    with torch.inference_mode():
        for ids_BT, labels_BT in batches:
            next_BT = labels_BT[:, 1:].to(device)
            logits_BTV = model(input_ids=ids_BT.to(device), use_cache=False).logits[:, :-1].float()
            total += float(cross_entropy(logits_BTV.flatten(0, 1), next_BT.flatten(), reduction="sum"))
            number += int((next_BT != -100).sum())
    return total / max(1, number)
