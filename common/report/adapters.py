"""What the card says of adapters: what was trained, what merging changed, and what it costs against all weights.

Usage: `parts += adapter_section(chain, comparisons)`; nothing where no stage trained an adapter.

The cost is known only where the same chain trained the same stage with all weights too, as `pipeline=adapters` does.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.report.chain import SIDES, Chain, Checkpoint, counterpart, is_adapted, settings_of
from common.report.comparisons import Comparison
from common.report.markdown import points


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
