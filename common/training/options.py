"""Derive a trainer's options from a stage's settings: steps from tokens, rates from the schedule.

Usage: `SFTConfig(**sft_options(settings, config, folder, steps=100, stage="cpt"))`.

The global batch and the budget are in tokens and do not change with the number of devices. Accumulation is derived, and
a combination that cannot meet the batch is refused.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from common.config.answering import OnlineSettings
from common.config.base import Schedule
from common.config.batches import (
    Batch,
    accumulate,
    batch_of,
    micro_tokens,
    pair_steps,
    require_shareable,
    rewarded_steps,
)
from common.config.schema import Config
from common.config.stages import PreferenceSettings, TrainingSettings
from common.cost.disk import KEPT_CHECKPOINTS
from common.errors import ConfigError
from common.models.device import device_of
from common.training.distributed import ranks

EXPERTS_LOSS = "router_aux_loss_coef"  # weight of the loss that evens the load of experts


def split_batch(batch: Batch, micro_tokens: int | None) -> tuple[int, int]:
    """Return (rows per forward pass and device, accumulation steps) whose product over devices is the batch.

    Raises ConfigError when the processes cannot share it.
    """
    require_shareable([batch], ranks.size())
    most = None if micro_tokens is None else micro_tokens // batch.tokens_each
    return accumulate(batch.size * batch.answers_each // ranks.size(), most)


def steps_for(settings: TrainingSettings, num_packed_rows: float, stage: str) -> int:
    """Return the number of optimizer steps: from the token budget, or from epochs over packed rows and replay."""
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
    return max(1, math.ceil(round(settings.epochs * num_packed_rows / rows_per_step, 6)))


def _options(
    settings: TrainingSettings | PreferenceSettings | OnlineSettings, config: Config, folder: Path, *, steps: int,
    stage: str,
) -> dict[str, Any]:  # fmt: skip
    """Return what every trainer gets: folder, logging, schedule, its share of the batch, and what is switched off."""
    batch, run = batch_of(stage, settings), config.run
    assert batch is not None, f"{stage} has no batch"
    rows, accumulation = split_batch(batch, micro_tokens(settings, run))
    on_cpu = device_of(run) == "cpu"
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "seed": config.seed,
        "data_seed": config.seed,
        "logging_steps": max(1, steps // 50),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # it would replace a broken loss by the mean of older ones
        "ddp_timeout": round(60 * run.patience_minutes),
        "ddp_find_unused_parameters": False,
        "save_strategy": "no",  # the checkpoint callback decides by time
        "save_total_limit": KEPT_CHECKPOINTS,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": on_cpu,
        "bf16": settings.precision == "bfloat16",
        "fp16": settings.precision == "float16",
        "dataloader_num_workers": run.workers,
        "dataloader_pin_memory": not on_cpu,
        "remove_unused_columns": False,
        **schedule_options(settings.schedule, steps),
        "per_device_train_batch_size": rows,
        "per_device_eval_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
    }


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


def sft_options(settings: TrainingSettings, config: Config, folder: Path, *, steps: int, stage: str) -> dict[str, Any]:
    """Return the keyword arguments of TRL's SFTConfig. The user's `train:` block overrides them."""
    options = _options(settings, config, folder, steps=steps, stage=stage)
    train = dict(settings.train)
    train.pop("assistant_only_loss", None)  # the labels of our rows say it already
    if settings.packing == "isolated":
        # Rows come tokenised and in their final order.
        options |= {"train_sampling_strategy": "sequential", "dataset_kwargs": {"skip_prepare_dataset": True}}
    return {**options, "max_length": settings.sequence_length, **train}


def preference_options(
    settings: PreferenceSettings, config: Config, folder: Path, *, num_pairs: float, stage: str, rows_per_pair: int = 1
) -> dict[str, Any]:
    """Return the keyword arguments that TRL's config classes for pairs have in common.

    `rows_per_pair` is 2 for a trainer that takes the two answers of a pair as rows of their own.
    """
    options = _options(settings, config, folder, steps=pair_steps(settings, num_pairs), stage=stage)
    pairs = options["per_device_train_batch_size"]
    return {
        **options,
        "per_device_train_batch_size": pairs * rows_per_pair,
        "per_device_eval_batch_size": max(32, pairs) * rows_per_pair,
        "max_length": settings.sequence_length,
        **settings.train,
    }


def rewarded_options(
    settings: OnlineSettings, config: Config, folder: Path, *, num_prompts: int, stage: str
) -> dict[str, Any]:
    """Return the keyword arguments that TRL's config classes for rewards have in common. Every step is logged."""
    return {
        **_options(settings, config, folder, steps=rewarded_steps(settings, num_prompts), stage=stage),
        "logging_steps": 1,
        "per_device_eval_batch_size": settings.samples,
        "num_generations": settings.samples,
        "max_completion_length": settings.answer_tokens,
        **settings.train,
        "shuffle_dataset": False,  # the prompts come in their final order
    }


def without_experts(options: dict[str, Any], model: Any, stage: str) -> dict[str, Any]:
    """Return options of TRL that fit a model without experts whose configuration has settings of them, as a Doge's.

    TRL would ask it for the loss that evens the load of experts. Raises ConfigError where the options name a weight of
    that loss.
    """
    if not _lacks_routers(model):
        return options
    if given := options.get(EXPERTS_LOSS):
        raise ConfigError(f"{stage}.train.{EXPERTS_LOSS} is {given}, but this model has no experts. Leave it out.")
    return {**options, EXPERTS_LOSS: 0.0}


def _lacks_routers(model: Any) -> bool:
    """Whether none of a model's modules is one whose outputs transformers gives as `router_logits`."""
    known = [getattr(module, "_can_record_outputs", None) or {} for module in model.modules()]
    found = [place["router_logits"] for place in known if "router_logits" in place]
    recorders = [one for each in found for one in (each if isinstance(each, list) else [each])]
    kinds = tuple(getattr(one, "target_class", one) for one in recorders)
    return bool(kinds) and not any(isinstance(module, kinds) for module in model.modules())
