"""Derive a trainer's options from a stage's settings: steps from tokens, rates from the schedule.

Usage: `SFTConfig(**sft_options(settings, run, folder, steps=100, seed=0, device="cpu", stage="cpt"))`.

The global batch and the budget are in tokens and do not change with the number of devices. Accumulation is derived, and
a combination that cannot meet the batch is refused.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.config.base import Schedule
from common.config.batches import Batch, accumulate, batch_of, require_shareable
from common.config.schema import RunSettings
from common.config.stages import (
    ExpertSettings,
    PreferenceSettings,
    RewardedSettings,
    SftSettings,
    TrainingSettings,
)
from common.cost.disk import KEPT_CHECKPOINTS
from common.errors import ConfigError
from common.training.distributed import ranks


@contextlib.contextmanager
def refused_by_trl(stage: str) -> Iterator[None]:
    """Raise ConfigError where TRL, transformers or a package they need refuses a stage's options."""
    try:
        yield
    except ConfigError:
        raise
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"{stage}.train: TRL refuses these options: {error}") from error


def schedule_options(schedule: Schedule, steps: int) -> dict[str, Any]:
    """Return transformers' scheduler options. Every stage warms up from zero and then follows the shape.

    Cosine with a floor after re-warming: Ibrahim et al. 2024 (arXiv 2403.08763), section 3; warmup-stable-decay:
    Hu et al. 2024 (MiniCPM, arXiv 2404.06395), section 4.
    """
    warmup = round(schedule.warmup * steps)
    if schedule.kind == "constant":
        return {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": warmup}
    if schedule.kind == "cosine":
        kwargs: dict[str, Any] = {"min_lr_rate": schedule.floor}
        return {"lr_scheduler_type": "cosine_with_min_lr", "warmup_steps": warmup, "lr_scheduler_kwargs": kwargs}
    decay = max(1, round(schedule.decay * steps))
    kwargs = {"num_decay_steps": decay, "min_lr_ratio": schedule.floor, "decay_type": "1-sqrt"}
    return {"lr_scheduler_type": "warmup_stable_decay", "warmup_steps": warmup, "lr_scheduler_kwargs": kwargs}


def split_batch(batch: Batch, micro: int | None, rows_each: int = 1) -> tuple[int, int]:
    """Return (rows per forward pass and device, accumulation steps) whose product over devices is the batch.

    Each piece of the batch counts as `rows_each` rows. Raises ConfigError when the processes cannot share it.
    """
    world = ranks.size()
    require_shareable([batch], world)
    return accumulate(batch.size * rows_each // world, micro)


def steps_for(settings: TrainingSettings, num_packed_rows: int, stage: str) -> int:
    """Return the number of optimizer steps: from the token budget, or from epochs over the packed rows."""
    rows_per_step = settings.batch_tokens // settings.sequence_length
    if settings.tokens is not None:
        if settings.tokens < settings.batch_tokens:
            raise ConfigError(
                f"{stage}.tokens={settings.tokens} is less than one step of {stage}.batch_tokens="
                f"{settings.batch_tokens}; raise the budget or lower the batch."
            )
        return round(settings.tokens / settings.batch_tokens)
    if settings.epochs is None:
        raise ConfigError(f"{stage}: neither tokens nor epochs is set; give {stage}.tokens=<number>.")
    return max(1, math.ceil(settings.epochs * num_packed_rows / rows_per_step))


def shared_options(run: RunSettings, folder: Path, *, steps: int, seed: int, device: str) -> dict[str, Any]:
    """Return what every trainer gets: its folder, its logging, and what is switched off."""
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "seed": seed,
        "data_seed": seed,
        "logging_steps": max(1, steps // 50),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # it would replace a broken loss by the mean of older ones
        "ddp_timeout": round(60 * run.patience_minutes),
        "ddp_find_unused_parameters": False,
        "save_strategy": "no",  # the checkpoint callback decides by time
        "save_total_limit": KEPT_CHECKPOINTS,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device == "cpu",
        "dataloader_num_workers": run.workers,
        "dataloader_pin_memory": device != "cpu",
        "remove_unused_columns": False,
    }


def _options(
    settings: TrainingSettings | PreferenceSettings | RewardedSettings, run: RunSettings, folder: Path, *, steps: int,
    seed: int, device: str, stage: str, piece_tokens: int, rows_each: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Return what all trainers get: `shared_options`, the schedule, and how the global batch is split.

    `piece_tokens` are the tokens of one piece of the batch in a forward pass (a row, a pair, an answer). Each piece
    counts as `rows_each` rows.
    """
    batch = batch_of(stage, settings)
    assert batch is not None, f"{stage} has no batch"
    micro = None if run.micro_batch_tokens is None else run.micro_batch_tokens // piece_tokens
    rows, accumulation = split_batch(batch, micro, rows_each)
    return {
        **shared_options(run, folder, steps=steps, seed=seed, device=device),
        **schedule_options(settings.schedule, steps),
        "per_device_train_batch_size": rows,
        "per_device_eval_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
    }


def sft_options(
    settings: TrainingSettings, run: RunSettings, folder: Path, *, steps: int, seed: int, device: str, stage: str
) -> dict[str, Any]:
    """Return the keyword arguments of TRL's SFTConfig. The user's `train:` block overrides them."""
    length = settings.sequence_length
    options = _options(settings, run, folder, steps=steps, seed=seed, device=device, stage=stage, piece_tokens=length)
    train = dict(settings.train)
    if settings.packing == "trl" and isinstance(settings, SftSettings | ExpertSettings):
        options["assistant_only_loss"] = True
    if settings.packing == "isolated":
        train.pop("assistant_only_loss", None)  # the labels of our rows say it already
        # Rows come tokenised and in their final order.
        options |= {"train_sampling_strategy": "sequential", "dataset_kwargs": {"skip_prepare_dataset": True}}
    return {**options, "max_length": length, **train}


def preference_options(
    settings: PreferenceSettings, run: RunSettings, folder: Path, *, num_pairs: int, seed: int, device: str,
    stage: str, rows_per_pair: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Return the keyword arguments that TRL's config classes for pairs have in common.

    `rows_per_pair` is 2 for a trainer that takes the two answers of a pair as rows of their own.
    """
    length = settings.sequence_length
    steps = max(1, round(settings.epochs * num_pairs / settings.batch_pairs))
    options = _options(
        settings, run, folder, steps=steps, seed=seed, device=device, stage=stage, piece_tokens=2 * length
    )
    pairs = options["per_device_train_batch_size"]
    return {
        **options,
        "per_device_train_batch_size": pairs * rows_per_pair,
        "per_device_eval_batch_size": max(32, pairs) * rows_per_pair,
        "max_length": length,
        **settings.train,
    }


def rewarded_options(
    settings: RewardedSettings, run: RunSettings, folder: Path, *, seed: int, device: str, stage: str
) -> dict[str, Any]:
    """Return the keyword arguments that TRL's config classes for rewards have in common. Every step is logged."""
    return {
        **_options(
            settings, run, folder, steps=settings.steps, seed=seed, device=device, stage=stage,
            piece_tokens=settings.prompt_tokens + settings.answer_tokens, rows_each=settings.samples,
        ),
        "logging_steps": 1,
        "per_device_eval_batch_size": settings.samples,
        "num_generations": settings.samples,
        "max_completion_length": settings.answer_tokens,
        **settings.train,
        "shuffle_dataset": False,  # the prompts come in their final order
    }  # fmt: skip
