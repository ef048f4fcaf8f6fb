"""Read every document of packed rows in a row of its own, for models that would let them see each other.

Usage: `with unpacking(model): trainer.train()`; `keeps_apart(model)` of `common.training.speed.isolation` says whether
it helps.

Recurrent and hybrid models (Mamba, Bamba, LFM2, Qwen3-Next) carry a state from document to document; those with ALiBi
(Bloom, MPT) take no positions; GPT-OSS, Falcon and XGLM make their masks without them. All read padded rows well. So
the backbone gets documents of similar length as padded rows, and what it returns is put back to where they stood.

Shapes: B packed rows of T tokens; N documents of a group, L tokens of its longest.
"""

from __future__ import annotations

import contextlib
import inspect
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SHORTEST = 0.5  # of a group's longest document, so that at most half of a row is padding

_unpacking: weakref.WeakSet[Any] = weakref.WeakSet()


def is_unpacking(model: Any) -> bool:
    """Whether a model, without its adapter, reads documents in rows of their own now."""
    return model in _unpacking


@contextlib.contextmanager
def unpacking(model: Any) -> Iterator[None]:
    """Let a model read documents in rows of their own, wherever it is given positions and no mask of padding."""
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    backbone, whole = bare.base_model, bare.base_model.forward
    names = list(inspect.signature(whole).parameters)
    held: list[Tensor] = []  # positions that the model itself would not take

    def take_positions(module: Any, args: Any, given: dict[str, Any]) -> Any:
        if "position_ids" in names or given.get("position_ids") is None:
            return None
        held[:] = [given["position_ids"]]
        return args, {name: value for name, value in given.items() if name != "position_ids"}

    def forward(*args: Any, **more: Any) -> Any:
        given = {**dict(zip(names, args, strict=False)), **more}
        positions_BT = held.pop() if held else given.get("position_ids")
        if positions_BT is None or given.get("input_ids") is None or given.get("attention_mask") is not None:
            return whole(**given)
        rest = {k: v for k, v in given.items() if k not in ("input_ids", "position_ids", "attention_mask", "use_cache")}
        rest |= {"use_cache": False} if "use_cache" in names else {}
        return _apart(whole, given["input_ids"], positions_BT, rest)

    own = vars(backbone).get("forward")
    backbone.forward = forward
    # An adapter calls the forward method of what it adapts, where hooks do not run.
    hooks = [one.register_forward_pre_hook(take_positions, with_kwargs=True) for one in dict.fromkeys((model, bare))]
    _unpacking.add(bare)
    try:
        yield
    finally:
        _unpacking.discard(bare)
        for hook in hooks:
            hook.remove()
        if own is None:
            del backbone.forward
        else:
            backbone.forward = own


def _apart(whole: Any, ids_BT: Tensor, positions_BT: Tensor, rest: dict[str, Any]) -> Any:
    """Return what a backbone returns for packed rows, of forward passes over padded rows."""
    import torch

    ids, device = ids_BT.flatten(), ids_BT.device
    starts_BT = torch.ones_like(positions_BT, dtype=torch.bool)
    starts_BT[:, 1:] = positions_BT[:, 1:] != positions_BT[:, :-1] + 1
    starts = starts_BT.expand(ids_BT.shape).flatten().nonzero().flatten().tolist()
    lengths = [end - start for start, end in zip(starts, [*starts[1:], len(ids)], strict=True)]
    read, places = [], []
    for group in groups_of(lengths):
        first_N, size_N = (torch.tensor([of[n] for n in group], device=device) for of in (starts, lengths))
        order_L = torch.arange(int(size_N.max()), device=device)
        real_NL = order_L < size_N[:, None]
        places_NL = (first_N[:, None] + order_L).where(real_NL, first_N[:, None])  # padding repeats a first token
        mask = {} if real_NL.all() else {"attention_mask": real_NL.long()}
        read.append((whole(input_ids=ids[places_NL], **mask, **rest), real_NL))
        places.append(places_NL[real_NL])
    back = torch.cat(places).argsort()
    first = read[0][0]
    fields = {
        name: _joined([found[name] for found, _ in read], [real_NL for _, real_NL in read], back, ids_BT.shape)
        for name in first
    }
    return type(first)(**fields)


def groups_of(lengths: Sequence[int]) -> list[list[int]]:
    """Return the places of documents whose lengths are similar, in groups, the longest first."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if groups and lengths[place] >= SHORTEST * lengths[groups[-1][0]]:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _joined(values: Sequence[Any], reals: Sequence[Tensor], back: Tensor, shape: Sequence[int]) -> Any:
    """Put what was found of each group's tokens back into rows: (N, L, …) to (B, T, …), (N L, …) to (B T, …).

    Raises ValueError for anything else.
    """
    import torch

    if all(isinstance(value, tuple) for value in values):
        return tuple(_joined(parts, reals, back, shape) for parts in zip(*values, strict=True))
    found = []
    for value, real_NL in zip(values, reals, strict=True):
        flat = value.dim() > 1 and value.shape[0] == real_NL.numel() and value.shape[:2] != real_NL.shape
        if not flat and value.shape[:2] != real_NL.shape:
            raise ValueError(f"a result of the shape {tuple(value.shape)} is not by tokens")
        found.append(value[real_NL.flatten() if flat else real_NL])
    joined = torch.cat(found)[back]
    return joined if flat else joined.unflatten(0, tuple(shape))
