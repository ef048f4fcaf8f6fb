"""Learning-rate schedules: from a stage's `schedule:` block to the scheduler of transformers.

Usage: `SFTConfig(**schedule_options(settings.schedule, steps=100))`.
"""

from __future__ import annotations

from typing import Any

from common.config.base import Schedule


def schedule_options(schedule: Schedule, steps: int) -> dict[str, Any]:
    """Return transformers' scheduler options. Every stage warms up from zero and then follows the shape.

    Cosine with a floor after re-warming: Ibrahim et al. 2024 (arXiv 2403.08763), section 3; warmup-stable-decay:
    Hu et al. 2024 (MiniCPM, arXiv 2404.06395), section 4.
    """
    warmup = min(steps, round(schedule.warmup if schedule.warmup >= 1 else schedule.warmup * steps))
    if schedule.kind == "constant":
        return {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": warmup}
    if schedule.kind == "cosine":
        kwargs: dict[str, Any] = {"min_lr_rate": schedule.floor}
        return {"lr_scheduler_type": "cosine_with_min_lr", "warmup_steps": warmup, "lr_scheduler_kwargs": kwargs}
    if schedule.kind == "linear":  # from the end of the warm-up on, as transformers' `linear` does to zero
        kwargs = {"num_decay_steps": max(1, steps - warmup), "min_lr_ratio": schedule.floor, "decay_type": "linear"}
    else:
        room = steps - warmup if schedule.warmup >= 1 else steps
        decay = max(1, min(room, round(schedule.decay * steps)))
        kwargs = {"num_decay_steps": decay, "min_lr_ratio": schedule.floor, "decay_type": "1-sqrt"}
    return {"lr_scheduler_type": "warmup_stable_decay", "warmup_steps": warmup, "lr_scheduler_kwargs": kwargs}
