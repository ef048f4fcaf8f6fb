"""What the stages that learn from pairs share: reading them, measuring the held-out ones, and handing on.

Usage: `return tune(context, train)`, where `train(context, model, tokenizer, pairs)` runs one of TRL's trainers.

The held-out pairs never train. With a reference, a pair counts as right when training has raised the chosen answer's
log-probability more than the rejected one's: the implicit reward of DPO (Rafailov et al. 2023, arXiv 2305.18290,
section 4), with the stage before as the reference. Without one, as for ORPO, it does when the chosen answer has the
better odds: the likelihood per token, which a model can rank well before any tuning, so that is told too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from common.data.accounting import check_limits
from common.errors import ConfigError, DataError
from common.evaluation.statistics import wilson
from common.stage_settings import PreferenceSettings
from common.stages import StageContext, StageReport
from common.training import checkpoint
from common.training.device import device_of
from common.training.fit import Fitted, hand_on, plain_model, whole
from common.training.options import preference_options
from common.training.preferences import Pair, accuracy, answer_logps, ranked_first, read_pairs
from common.training.reader import origin
from common.training.trainer import TrainingLoop

NUM_CHECKED = 16  # pairs whose reference log-probabilities are computed a second time
Train = Callable[[StageContext, Any, Any, list[Pair]], Fitted]


def tune(context: StageContext, train: Train, *, referenced: bool = True) -> StageReport:
    """Return the report of a stage that continues from its parent with `train`, once its result is saved.

    `referenced` says whether the method compares with the stage before.
    """
    settings = cast(PreferenceSettings, context.settings)
    model, tokenizer = checkpoint.load(context.parent_artifact.path, context.config.model)
    pairs, counts = read_pairs(context, tokenizer, "preference")
    heldout, heldout_counts = read_pairs(context, tokenizer, "preference_heldout")
    check_limits(counts, settings.limits, context.stage)
    if not pairs:
        raise DataError(
            f"Stage {context.stage}: {origin(context, 'preference')} has no usable pair. Check where it comes from."
        )
    device = device_of(context.config.run)
    model.to(device)
    before = answer_logps(model, heldout, tokenizer.pad_token_id)

    fitted = whole(context, train(context, model, tokenizer, pairs), pairs[0].chosen_ids)

    metrics: dict[str, Any] = {"steps": fitted.steps, "pairs": len(pairs)}
    if fitted.log:
        metrics["final_loss"] = fitted.log[-1]["loss"]
    if heldout:
        fitted.model.to(device)
        after = answer_logps(fitted.model, heldout, tokenizer.pad_token_id)
        right = accuracy(after, before) if referenced else ranked_first(after, heldout)
        low, high = wilson(right, len(heldout))
        metrics["preference_accuracy"] = {
            "score": round(right / len(heldout), 4), "n": len(heldout), "low": round(low, 4), "high": round(high, 4),
            **({} if referenced else {"before": round(ranked_first(before, heldout) / len(heldout), 4)}),
        }  # fmt: skip
    parent_tokenizer = checkpoint.load_tokenizer(context.parent_artifact.path, context.config.model)
    measured = hand_on(context, fitted, tokenizer, probe=pairs[0].chosen_ids, parent_tokenizer=parent_tokenizer)
    return StageReport(
        metrics={**metrics, **measured},
        tokens=fitted.tokens,
        train_seconds=fitted.seconds,
        rows=[count.as_dict() for count in (*counts, *heldout_counts)],
        sources=context.corpus.sources(),
    )


def loop_for(context: StageContext, pairs: list[Pair]) -> TrainingLoop:
    """Return the loop of a trainer whose steps read `batch_pairs` pairs, both sides of each."""
    settings = cast(PreferenceSettings, context.settings)
    mean_tokens = sum(len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs) / len(pairs)
    return TrainingLoop(context, round(settings.batch_pairs * mean_tokens))


def arguments_for(
    config_class: Any, context: StageContext, loop: TrainingLoop, *, num_pairs: int, defaults: Mapping[str, Any],
    rows_per_pair: int = 1,
) -> Any:  # fmt: skip
    """Build the trainer's configuration; `defaults` hold where settings say nothing. Raises ConfigError."""
    settings = cast(PreferenceSettings, context.settings)
    options = preference_options(
        settings, context.config.run, loop.folder, num_pairs=num_pairs, seed=context.config.seed,
        device=device_of(context.config.run), stage=context.stage, rows_per_pair=rows_per_pair,
    )  # fmt: skip
    try:
        return config_class(**{**defaults, **options})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{context.stage}.train: TRL refuses these options: {error}") from error


def finish(trainer: Any, loop: TrainingLoop) -> Fitted:
    """Train to the end; return the model as it was before accelerate wrapped it."""
    log = loop.run(trainer)
    return Fitted(plain_model(trainer), log, loop.steps, loop.seconds, loop.steps * loop.tokens_per_step)


def needs_precomputed(context: StageContext, arguments: Any) -> None:
    """Refuse a reference that is computed anew at every step. Raises ConfigError."""
    if not arguments.precompute_ref_log_probs:
        raise ConfigError(
            f"{context.stage}.train.precompute_ref_log_probs=false: the reference is always precomputed here."
        )
