"""Rotary positions and norms in fewer operations than models' own code has, for as long as one trains on a CPU.

Usage: `with fused(model, config.run, device) as replaced: trainer.train()`.

There a small operation costs more to start than to compute, and the backward pass of every slice fills a tensor with
zeros. What is replaced is compared with the model's own first, forward and backward, for a few numbers; where the two
differ (interleaved positions, a norm of another formula) the model's own stays. Compiled layers fuse by themselves.
Shapes: B rows of T tokens, H heads, D the size of a head, N any leading sizes, C channels of a norm.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from common.config.schema import RunSettings

if TYPE_CHECKING:
    from torch import Tensor

ROTARY = "apply_rotary_pos_emb"  # what transformers calls it in the module of every model that has it
PARAMETERS = ["q", "k", "cos", "sin", "unsqueeze_dim"]
Rotary = Callable[..., tuple[Any, Any]]


@contextlib.contextmanager
def fused(model: Any, run: RunSettings, device: str, *, in_one_piece: bool = False) -> Iterator[int]:
    """Replace what can be, if `run.fused_ops` says so; yield how many functions and norms. `in_one_piece`: compiled."""
    with contextlib.ExitStack() as undo:
        replaced = 0
        if run.fused_ops and device == "cpu" and not in_one_piece:
            for name in sorted({type(module).__module__ for module in model.modules()}):
                replaced += undo.enter_context(_rotating(sys.modules.get(name)))
            for module in model.modules():
                replaced += undo.enter_context(_normalising(module))
        yield replaced


@contextlib.contextmanager
def _rotating(module: Any) -> Iterator[bool]:
    """Replace the rotary function of a Python module, if it has one that ours equals and that is not ours already."""
    theirs = getattr(module, ROTARY, None)
    if theirs is None or hasattr(theirs, "replaces") or not _rotates_alike(theirs):
        yield False
        return

    @functools.wraps(theirs)
    def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        import torch

        whole = unsqueeze_dim == 1 and cos.dim() == 3 and q.dim() == 4 and cos.shape[-1] == q.shape[-1]
        if not whole or cos.dtype != torch.float32:
            found: tuple[Tensor, Tensor] = theirs(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
            return found
        return _functions()[0].apply(q, k, cos, sin)  # type: ignore[no-any-return] # torch's apply is untyped

    rotate.replaces = theirs  # type: ignore[attr-defined] # a mark on a function
    setattr(module, ROTARY, rotate)
    try:
        yield True
    finally:
        setattr(module, ROTARY, theirs)


@contextlib.contextmanager
def _normalising(module: Any) -> Iterator[bool]:
    """Replace the forward pass of a norm, if it is one that ours equals and has none of its own already."""
    if "forward" in vars(module) or not _normalises_alike(module):
        yield False
        return
    module.forward = types.MethodType(_normalise, module)
    try:
        yield True
    finally:
        del module.forward


def _normalise(self: Any, states: Tensor) -> Tensor:
    import torch

    if states.dtype != torch.float32 or self.weight.dtype != torch.float32 or states.dim() < 2:
        return type(self).forward(self, states)
    return _functions()[1].apply(states, self.weight, self.variance_epsilon)


@functools.cache
def _functions() -> tuple[Any, Any]:
    """Return both functions with their backward passes; a function, so that importing this module imports no torch."""
    import torch
    from torch.autograd.function import once_differentiable

    def turn(states_BHTD: Tensor, cos_BT1D: Tensor, sin_BT1D: Tensor) -> Tensor:
        """Return x * cos + swap(x) * sin, where swap exchanges the halves of a head; memory in the order of x."""
        states_BTHD = states_BHTD.transpose(1, 2)
        swapped_BTHD = states_BTHD.roll(states_BTHD.shape[-1] // 2, -1)
        return (states_BTHD * cos_BT1D).addcmul_(swapped_BTHD, sin_BT1D).transpose(1, 2)

    class Rotation(torch.autograd.Function):  # type: ignore[misc] # torch leaves it untyped
        """q and k turned by their positions (Su et al. 2021, arXiv 2104.09864, equation 34, on halves of a head)."""

        @staticmethod
        def forward(ctx: Any, q: Tensor, k: Tensor, cos_BTD: Tensor, sin_BTD: Tensor) -> tuple[Tensor, Tensor]:
            ctx.save_for_backward(cos_BTD, sin_BTD)
            first, second = sin_BTD.chunk(2, -1)
            signed = torch.cat((-first, second), -1)[:, :, None]
            return turn(q, cos_BTD[:, :, None], signed), turn(k, cos_BTD[:, :, None], signed)

        @staticmethod
        @once_differentiable  # type: ignore[untyped-decorator] # of torch
        def backward(ctx: Any, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, None, None]:
            cos_BTD, sin_BTD = ctx.saved_tensors
            first, second = sin_BTD.chunk(2, -1)
            signed = torch.cat((second, -first), -1)[:, :, None]
            return turn(q, cos_BTD[:, :, None], signed), turn(k, cos_BTD[:, :, None], signed), None, None

    class RmsNorm(torch.autograd.Function):  # type: ignore[misc] # torch leaves it untyped
        """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, arXiv 1910.07467, equation 4), in float32."""

        @staticmethod
        def forward(ctx: Any, x_NC: Tensor, weight_C: Tensor, eps: float) -> Tensor:
            norm_N1 = torch.linalg.vector_norm(x_NC, dim=-1, keepdim=True)
            scale_N1 = norm_N1.square_().div_(x_NC.shape[-1]).add_(eps).rsqrt_()
            scaled_NC = x_NC * scale_N1
            ctx.save_for_backward(scaled_NC, scale_N1, weight_C)
            return scaled_NC * weight_C

        @staticmethod
        @once_differentiable  # type: ignore[untyped-decorator] # of torch
        def backward(ctx: Any, grad_NC: Tensor) -> tuple[Tensor, Tensor | None, None]:
            scaled_NC, scale_N1, weight_C = ctx.saved_tensors
            of_weight = (grad_NC * scaled_NC).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
            of_scaled = grad_NC * weight_C
            mean_N1 = (of_scaled * scaled_NC).mean(-1, keepdim=True)
            return of_scaled.addcmul_(scaled_NC, mean_N1, value=-1).mul_(scale_N1), of_weight, None

    return Rotation, RmsNorm


@functools.cache
def _rotates_alike(theirs: Rotary) -> bool:
    """Compare ours with a model's function: heads of two halves whose angles are any, in both types of autocast."""
    import torch

    if list(inspect.signature(theirs).parameters) != PARAMETERS:
        return False
    cos, sin = _numbers(2, 3, 8), _numbers(2, 3, 8) - 0.5
    for dtype, close in ((torch.float32, 1e-5), (torch.bfloat16, 0.02)):
        found = []
        for rotate in (theirs, _functions()[0].apply):
            q, k = (_numbers(2, heads, 3, 8).to(dtype).requires_grad_() for heads in (2, 1))
            try:
                turned = rotate(q, k, cos, sin)
            except Exception:  # of a function that wants other angles, whatever it raises
                return False
            grads = torch.autograd.grad(turned, (q, k), [x.detach().cos() for x in turned])
            found.append([*turned, *grads])
        if not _alike(found[0], found[1], close):
            return False
    return True


def _normalises_alike(module: Any) -> bool:
    """Compare ours with a norm's own forward pass, with weights that are none of their usual values."""
    import torch

    eps, weights = getattr(module, "variance_epsilon", None), dict(module.named_parameters())
    plain = type(module).__name__.endswith("RMSNorm") and isinstance(eps, float) and list(weights) == ["weight"]
    if not plain or len(inspect.signature(type(module).forward).parameters) != 2:  # itself and the states
        return False
    if weights["weight"].dim() != 1 or weights["weight"].dtype != torch.float32:
        return False
    weight = _numbers(len(weights["weight"])).requires_grad_()
    found = []
    for mine in (False, True):
        x = (_numbers(2, 3, len(weight)) - 0.3).requires_grad_()
        try:
            theirs = functools.partial(torch.func.functional_call, module, {"weight": weight})
            y = _functions()[1].apply(x, weight, eps) if mine else theirs((x,))
        except Exception:  # of a norm that wants other states
            return False
        found.append([y, *torch.autograd.grad(y, (x, weight), y.detach().cos())])
    return _alike(found[0], found[1], 1e-4)


def _alike(theirs: Sequence[Tensor], ours: Sequence[Tensor], close: float) -> bool:
    import torch

    return all(
        a.dtype == b.dtype and torch.allclose(a, b, atol=close, rtol=close) for a, b in zip(theirs, ours, strict=True)
    )


def _numbers(*shape: int) -> Tensor:
    """Return numbers from 0 to 1 that follow no order, the same every time, and leave torch's generator alone."""
    import torch

    size = functools.reduce(int.__mul__, shape)
    return (torch.arange(size, dtype=torch.float32) * 0.754877).frac().view(shape)
