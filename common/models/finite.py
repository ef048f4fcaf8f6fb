"""Nothing goes on from a number that is none: the one check of weights, rewards, likelihoods and stored figures.

Usage: `require_finite(model.named_parameters(), "the checkpoint", "Give another one.", DataError)`.

NaN compares as false with everything, so a comparison alone lets it pass. A loss that is no number while a stage trains
is `common.training.loop.loss_guard`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.errors import ContractError, RecipeError


def require_finite(
    values: Iterable[tuple[str, Any]], what: str, advice: str, error: type[RecipeError] = ContractError
) -> None:
    """Check numbers, sequences of numbers or tensors, each with its name. Raises `error` for the first that is none.

    `true` is no number either. A tensor is read once, without a copy; one without memory of its own is passed over.
    """
    for name, value in values:
        if (found := _not_finite(value)) is not None:
            raise error(f"{what}: {name} {found}; expected finite numbers. {advice}")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and neither true nor false."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def weights_in(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a safetensors file with their names, one in memory at a time."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  # no mapping
            yield name, tensors.get_tensor(name)


def _not_finite(value: Any) -> str | None:
    """Return what is wrong with a number, a sequence or a tensor; None where all of it is finite."""
    if hasattr(value, "is_floating_point"):
        return _not_finite_in(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return next((found for one in value if (found := _not_finite(one)) is not None), None)
    return None if is_number(value) else f"is {value!r}"[:60]


def _not_finite_in(tensor: Any) -> str | None:
    import torch

    if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
        return None
    tensor = tensor.detach()
    ends = torch.stack(torch.aminmax(tensor if tensor.element_size() > 1 else tensor.float())).float()  # NaN is both
    if bool(torch.isfinite(ends).all()):
        return None
    number = int((~torch.isfinite(tensor.float())).sum())
    return f"holds {'NaN' if bool(torch.isnan(ends).any()) else 'infinity'} in {number:,} of {tensor.numel():,} places"
