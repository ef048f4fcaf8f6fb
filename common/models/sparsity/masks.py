"""The 2:4 pattern: which weights a matrix keeps, and matrices that learn a scale of their rows until they are cut.

Usage: `scale(model, ("q_proj", "k_proj"), groups=2)`; train; `facts = cut(model)`, and the model is a plain one again.

CAST (arXiv 2509.25996): of each 4 weights along the input dimension the 2 largest magnitudes are kept. While it trains
a matrix computes with all of its weights W, times a trained A of n numbers a row, one for each of n groups of columns,
which begins at 1 and gives back the magnitude that decay takes. At the end W is cut, and A multiplied into it.

How the weights outside of the pattern go to zero is `common.training.methods.optimizers.adams`. Speed is not a matter
here: what computes faster with such matrices are kernels of a GPU. Shapes: R outputs, C inputs, n groups of columns.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

KEPT, GROUP = 2, 4


def mask_of(weight_RC: Tensor) -> Tensor:
    """Return (R, C) booleans, true at the 2 largest magnitudes of each 4 neighbours of a row; of equal ones any."""
    import torch

    groups_RG4 = weight_RC.detach().abs().unflatten(1, (-1, GROUP))
    kept_RG2 = groups_RG4.topk(KEPT, dim=-1).indices
    return torch.zeros_like(groups_RG4, dtype=torch.bool).scatter_(-1, kept_RG2, True).flatten(1)


def is_sparse(weight_RC: Tensor) -> bool:
    """Whether a matrix has at most 2 numbers that are not zero in each 4 of a row, and is not zero altogether."""
    if weight_RC.ndim != 2 or weight_RC.shape[1] % GROUP:
        return False
    most = int((weight_RC != 0).unflatten(1, (-1, GROUP)).sum(dim=-1).max())
    return 0 < most <= KEPT


def scaled(weight_RC: Tensor, scale_Rn: Tensor) -> Tensor:
    """Return (R, C) weights, each times the number of its row and its group of columns."""
    return (weight_RC.unflatten(1, (scale_Rn.shape[1], -1)) * scale_Rn[:, :, None]).flatten(1)


@functools.cache
def scaled_linear() -> type[Any]:
    """Return the class of such a matrix; a function, so that importing this module does not import torch."""
    import torch
    from torch import nn

    class ScaledLinear(nn.Module):  # type: ignore[misc] # mypy takes torch as untyped
        """A linear layer with a trained scale of its weights; weight and bias keep their names."""

        def __init__(self, linear: Any, groups: int) -> None:
            super().__init__()
            self.weight, self.bias = linear.weight, linear.bias
            self.scale = nn.Parameter(torch.ones(linear.weight.shape[0], groups, device=linear.weight.device))

        def forward(self, x: Any) -> Any:
            return nn.functional.linear(x, scaled(self.weight, self.scale), self.bias)

    return ScaledLinear


def linears(model: Any) -> dict[str, Any]:
    """Return the linear layers of a model by their whole names."""
    from torch import nn

    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def scale(model: Any, modules: Sequence[str], groups: int) -> list[str]:
    """Give the named linear layers of a model a scale that begins at 1, in place. Return the names of their weights."""
    found = {name: linear for name, linear in linears(model).items() if name.rpartition(".")[2] in modules}
    for name, linear in found.items():
        model.set_submodule(name, scaled_linear()(linear, groups), strict=True)
    return [f"{name}.weight" for name in found]


def scaled_weights(model: Any) -> dict[str, Any]:
    """Return the weights of all scaled layers, by their names."""
    modules = model.named_modules()
    return {f"{name}.weight": module.weight for name, module in modules if isinstance(module, scaled_linear())}


def cut(model: Any) -> dict[str, float]:
    """Set what is outside of the pattern to zero, multiply scales in, and put plain layers back, in place.

    Returns `cut`, the share of the squared norm that was set to zero: near 0 where decay has done its work.
    """
    import torch
    from torch import nn

    squares = [0.0, 0.0]  # of what is cut, of all
    for name, module in list(model.named_modules()):
        if not isinstance(module, scaled_linear()):
            continue
        with torch.no_grad():
            whole_RC = scaled(module.weight, module.scale)
            kept_RC = torch.where(mask_of(module.weight), whole_RC, 0.0)
            for place, part in enumerate((whole_RC - kept_RC, whole_RC)):
                squares[place] += float(part.double().square().sum())
            module.weight.copy_(kept_RC)
        rows, columns = module.weight.shape
        plain = nn.Linear(columns, rows, bias=module.bias is not None, device="meta")
        plain.weight, plain.bias = module.weight, module.bias
        model.set_submodule(name, plain, strict=True)
    return {"cut": squares[0] / squares[1] if squares[1] else 0.0}
