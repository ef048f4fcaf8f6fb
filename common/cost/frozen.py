"""Whether frozen layers keep their activations where others are checkpointed, which costs memory and saves time.

Usage: `setting = decided(setting, hardware)`; `setting.work.keeps_frozen` is what a plan prices and a training does.

Only stages with `train_only` freeze layers. Which of both it is changes no result, so it may differ between machines.
"""

from __future__ import annotations

from dataclasses import replace

from common.cost.hardware import Hardware
from common.cost.memory import Setting, phases_of

# Share of the memory that the estimate may fill: activations on GPUs have not been measured, and others use a CPU's.
ROOM = 0.8


def decided(setting: Setting, hardware: Hardware) -> Setting:
    """Return a stage whose frozen layers keep their activations as `run.keep_frozen` says, or if that fits."""
    work = setting.work
    if work is None or work.keeps_frozen is not None:
        return setting
    kept, again = (replace(setting, work=replace(work, keeps_frozen=keeps)) for keeps in (True, False))
    need = phases_of(kept)["train"]
    needed = need.device_total if hardware.device == "cuda" else need.host_total + setting.local * need.device_total
    return kept if needed <= ROOM * hardware.memory or not hardware.memory else again
