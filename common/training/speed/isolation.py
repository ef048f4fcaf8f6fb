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

from common.training.distributed import ranks
from common.training.speed.unpacking import is_unpacking

FIRST, SECOND = 9, 6  # tokens of both documents
# In units of the last place of the largest state, by bytes of a number: of one product, and of two shapes of it.
ROUNDING, OTHER_SHAPE = {4: 64, 2: 2}, {4: 2048, 2: 16}
PASSING = ("use_cache", "_token_id")  # how values end that a trainer changes as it goes

_of_model: weakref.WeakKeyDictionary[Any, dict[str, bool]] = weakref.WeakKeyDictionary()
_of_architecture: dict[tuple[str, str, str], bool] = {}


def keeps_apart(model: Any, on_cpu: str = "") -> bool:
    """Whether documents of a row do not see each other, with the attention that a model has now.

    The first process tries it and tells the others, which may have no weights yet where these are to be sharded.
    Sharded weights are not tried: what is not known of their kind by then is taken for no. Of weights that are nowhere
    only whether positions are taken is known. While they are on a CPU, and the kernels of the attention are not,
    `on_cpu` names one that stands in for it.
    """
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    unpacks = is_unpacking(bare)
    if not unpacks and "position_ids" not in inspect.signature(bare.base_model.forward).parameters:
        return False
    name = str(bare.config._attn_implementation) + (" unpacking" if unpacks else "")
    known = _of_model.setdefault(bare, {})
    if name not in known:
        key = (str(bare.config.model_type), name, _architecture(bare.config))
        if key in _of_architecture:
            known[name] = _of_architecture[key]
        elif any(hasattr(weight, "placements") for weight in bare.parameters()):
            return False
        else:
            absent = any(weight.is_meta or not weight.numel() for weight in bare.parameters())
            found = ranks.broadcast(absent or _tried(bare, on_cpu) if ranks.is_main_process() else False)
            if absent and ranks.size() == 1:
                return found
            known[name] = _of_architecture[key] = found
    return known[name]


def _architecture(config: Any) -> str:
    """Return the values of a configuration that its own kind of model has."""
    from transformers import PreTrainedConfig

    of_all = vars(PreTrainedConfig())
    own = {k: v for k, v in config.to_dict().items() if k not in of_all and not k.endswith(PASSING)}
    return json.dumps(own, sort_keys=True, default=str)


def _tried(model: Any, on_cpu: str) -> bool:
    """Whether the second of two documents stays as it is where the first one is another, which is read as alone.

    RoBERTa, for example, begins to count positions behind its padding token, so that those from zero are not its own.
    """
    import torch

    table, backbone = model.get_input_embeddings(), model.base_model
    numbers = torch.arange(2 * FIRST + SECOND, device=table.weight.device) % table.weight.shape[0]
    first, other, second = numbers.split((FIRST, FIRST, SECOND))
    ids_BT = torch.stack([torch.cat([first, second]), torch.cat([other, second])])
    ends_T = torch.cat([torch.arange(FIRST), torch.arange(SECOND)]).to(ids_BT.device)
    was_training, name = model.training, model.config._attn_implementation
    model.eval()
    if on_cpu and ids_BT.device.type == "cpu":
        model.config._attn_implementation = on_cpu
    try:
        with torch.no_grad():
            found = backbone(input_ids=ids_BT, position_ids=ends_T.expand(2, -1), use_cache=False).last_hidden_state
            alone = backbone(input_ids=ids_BT[:1, :FIRST], use_cache=False).last_hidden_state[0]
    except Exception:
        if not is_unpacking(model):
            raise
        return False  # what it returns cannot be put back into rows
    finally:
        model.train(was_training)
        model.config._attn_implementation = name
    size, unit = found.dtype.itemsize, torch.finfo(found.dtype).eps * float(found.abs().max())
    leak = (found[0] - found[1])[FIRST:].abs().max()
    other = (found[0, :FIRST] - alone).abs().amax(-1).median()  # rounding may send a token to another expert
    return bool(leak <= ROUNDING[size] * unit and other <= OTHER_SHAPE[size] * unit)
