"""Whether a model keeps the documents of a row apart by their positions, as packed rows and shared prompts need.

Usage: `if keeps_apart(model): …`, with the attention that it has; asked once for each.

Not every architecture does: some take no positions, and some do not tell their attention. No flag of transformers says
which, so a model reads a short document behind two others, and it may notice no difference.
"""

from __future__ import annotations

import inspect
import weakref
from typing import Any

DOCUMENT = 6  # tokens of each of both
LEAST = 0.01  # share of what the first document changes in the second where it is seen, which rounding may be

_known: weakref.WeakKeyDictionary[Any, dict[str, bool]] = weakref.WeakKeyDictionary()


def keeps_apart(model: Any) -> bool:
    """Whether documents of a row do not see each other, with the attention that a model has now.

    Of a model whose weights are not here, or not yet, only whether it takes positions is known.
    """
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "position_ids" not in inspect.signature(bare.base_model.forward).parameters:
        return False
    if any(weight.is_meta or not weight.numel() for weight in bare.parameters()):
        return True
    known, name = _known.setdefault(bare, {}), str(bare.config._attn_implementation)
    if name not in known:
        known[name] = _tried(bare)
    return known[name]


def _tried(model: Any) -> bool:
    """Whether the second of two documents stays as it is where the first one is another."""
    import torch

    table = model.get_input_embeddings()
    numbers = torch.arange(3 * DOCUMENT, device=table.weight.device) % table.weight.shape[0]
    first, other, second = numbers.split(DOCUMENT)
    ids_BT = torch.stack([torch.cat([first, second]), torch.cat([other, second])])
    restarting_BT = torch.arange(DOCUMENT, device=ids_BT.device).repeat(2, 2)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            apart, seen = (
                model.base_model(input_ids=ids_BT, use_cache=False, **more).last_hidden_state[:, -DOCUMENT:].float()
                for more in ({"position_ids": restarting_BT}, {})
            )
    finally:
        model.train(was_training)
    return bool((apart[0] - apart[1]).abs().max() <= LEAST * (seen[0] - seen[1]).abs().max())
