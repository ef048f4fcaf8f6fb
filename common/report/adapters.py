"""What the card says of adapters: what was trained, what merging changed, and what it costs against all weights.

Usage: `parts += adapter_section(chain, comparisons)`; nothing where no stage trained an adapter.

The cost is known only where the same chain trained the same stage with all weights too, as `pipeline=adapters` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from common.report.chain import SIDES, Chain, Checkpoint
from common.report.markdown import points

if TYPE_CHECKING:
    from common.report.comparisons import Comparison


def settings_of(checkpoint: Checkpoint) -> Mapping[str, Any]:
    recipe: Mapping[str, Any] = checkpoint.manifest.get("recipe") or {}
    return recipe.get("settings") or {}


def is_adapted(checkpoint: Checkpoint) -> bool:
    return bool(settings_of(checkpoint).get("peft", "full") != "full")


def counterpart(chain: Chain, checkpoint: Checkpoint) -> Checkpoint | None:
    """Return the checkpoint of the same kind that trained all weights from the same place, or from its counterpart."""
    if not is_adapted(checkpoint):
        return None
    parent = chain[checkpoint.parent] if checkpoint.parent and checkpoint.parent in chain else None
    twin = counterpart(chain, parent) if parent is not None else None
    places = {checkpoint.parent, twin.name if twin else checkpoint.parent}
    return next(
        (c for c in chain.checkpoints if c.kind == checkpoint.kind and c.parent in places and not is_adapted(c)), None
    )


def adapter_section(chain: Chain, comparisons: Sequence[Comparison]) -> list[str]:
    """Return the card's paragraphs on adapters."""
    adapted = [c for c in chain.checkpoints if is_adapted(c)]
    if not adapted:
        return []
    return ["### Adapters", *(_sentence(chain, c, comparisons) for c in adapted)]


def _sentence(chain: Chain, checkpoint: Checkpoint, comparisons: Sequence[Comparison]) -> str:
    settings, metrics = settings_of(checkpoint), checkpoint.manifest.get("metrics") or {}
    lora = settings.get("lora") or {}
    text = f"`{checkpoint.name}` trained an adapter ({settings['peft']}, rank {lora.get('r')})"
    if (changed := metrics.get("adapter_merge_difference")) is not None:
        text += f"; merging it changed the logits by {changed:.1g} of their range"
    if (changed := metrics.get("quantized_logit_difference")) is not None:
        text += f", and the unquantised model that is handed on differs from the quantised one by {changed:.1%}"
    full = counterpart(chain, checkpoint)
    if full is None:
        return text + ". No stage of this chain trained all weights from the same place, so its cost is not known here."
    costs = [
        f"{points(c.difference)} points [{points(c.low)}, {points(c.high)}] in the {side} exam"
        for side in SIDES
        for c in comparisons
        if (c.before, c.after, c.side) == (full.name, checkpoint.name, side)
    ]
    return text + (f". Against all weights (`{full.name}`): {', '.join(costs)}." if costs else ".")
