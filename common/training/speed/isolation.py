"""Whether a model keeps the documents of a row apart by their positions, as packed rows and shared prompts need.

Usage: `if keeps_apart(model): …`, with the attention that it has. Asked once for an architecture, by all processes.
What helps a model that does not is `common.training.speed.unpacking`.

Not every architecture does: some take no positions, and some do not tell their attention. No flag of transformers says
which, so a model reads a short document behind two others, and it may notice no difference.
"""

from __future__ import annotations

import inspect
import json
import weakref
from typing import Any

from common.training.speed.unpacking import is_unpacking

DOCUMENT = 6  # tokens of each of both
LEAST = 0.01  # share of what the first document changes in the second where it is seen, which rounding may be
PASSING = ("use_cache", "_token_id")  # how values end that a trainer changes as it goes

_of_model: weakref.WeakKeyDictionary[Any, dict[str, bool]] = weakref.WeakKeyDictionary()
_of_architecture: dict[tuple[type, str, str], bool] = {}


def keeps_apart(model: Any, on_cpu: str = "") -> bool:
    """Whether documents of a row do not see each other, with the attention that a model has now.

    The first process tries it and tells the others, which may have no weights yet where these are to be sharded. Of
    weights that are nowhere only whether positions are taken is known. While they are on a CPU, and the kernels of the
    attention are not, `on_cpu` names one that stands in for it.
    """
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    unpacks = is_unpacking(bare)
    if not unpacks and "position_ids" not in inspect.signature(bare.base_model.forward).parameters:
        return False
    name = str(bare.config._attn_implementation) + (" unpacking" if unpacks else "")
    known = _of_model.setdefault(bare, {})
    if name not in known:
        key = (type(bare), name, _architecture(bare.config))
        if key not in _of_architecture:
            absent = any(weight.is_meta or not weight.numel() for weight in bare.parameters())
            _of_architecture[key] = _of_the_first(True if absent else _tried(bare, on_cpu))
        known[name] = _of_architecture[key]
    return known[name]


def _architecture(config: Any) -> str:
    """Return the values of a configuration that its own kind of model has."""
    from transformers import PreTrainedConfig

    of_all = vars(PreTrainedConfig())
    own = {k: v for k, v in config.to_dict().items() if k not in of_all and not k.endswith(PASSING)}
    return json.dumps(own, sort_keys=True, default=str)


def _of_the_first(answer: bool) -> bool:
    """Return the answer of the first process, in all of them."""
    import torch.distributed as dist

    answers = [answer]
    if dist.is_available() and dist.is_initialized():
        dist.broadcast_object_list(answers)
    return answers[0]


def _tried(model: Any, on_cpu: str) -> bool:
    """Whether the second of two documents stays as it is where the first one is another."""
    import torch

    table = model.get_input_embeddings()
    numbers = torch.arange(3 * DOCUMENT, device=table.weight.device) % table.weight.shape[0]
    first, other, second = numbers.split(DOCUMENT)
    ids_BT = torch.stack([torch.cat([first, second]), torch.cat([other, second])])
    restarting_BT = torch.arange(DOCUMENT, device=ids_BT.device).repeat(2, 2)
    was_training, name = model.training, model.config._attn_implementation
    model.eval()
    if on_cpu and ids_BT.device.type == "cpu":
        model.config._attn_implementation = on_cpu
    try:
        with torch.no_grad():
            apart, seen = (
                model.base_model(input_ids=ids_BT, use_cache=False, **more).last_hidden_state[:, -DOCUMENT:].float()
                for more in ({"position_ids": restarting_BT}, {})
            )
    except Exception:
        if not is_unpacking(model):
            raise
        return False  # what it returns cannot be put back into rows
    finally:
        model.train(was_training)
        model.config._attn_implementation = name
    return bool((apart[0] - apart[1]).abs().max() <= LEAST * (seen[0] - seen[1]).abs().max())
