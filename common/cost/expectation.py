"""The memory that a phase was expected to need, for the message when it runs out.

Usage: `expected(context, "train")` returns `18.3 GiB were expected`, or nothing where nothing is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.cost.hardware import GIB
from common.cost.memory import phases_of
from common.cost.outlook import setting_in

if TYPE_CHECKING:
    from common.stage import StageContext


def expected(context: StageContext, phase: str) -> str:
    """Return how much a phase was expected to need where it computes, or an empty text."""
    found = setting_in(context)
    need = phases_of(found[0]).get(phase) if found is not None else None
    if found is None or need is None:
        return ""
    on_gpu = found[0].device == "cuda" and phase not in ("save", "merge")
    size = need.device_total if on_gpu else need.host_total + (need.device_total if found[0].device == "cpu" else 0)
    unsure = " at most" if need.at_most else ""
    return f"{size / GIB:.1f} GiB were expected{unsure}"
