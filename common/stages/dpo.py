"""Preference tuning with DPO (Rafailov et al. 2023): the answer people prefer against the one they do not.

Usage: named by a pipeline as `dpo: {kind: dpo, from: sft}`.

The reference is the stage before it, always: its log-probabilities are computed once before training, and
checked against that stage's own checkpoint. The held-out pairs never train.
"""

from __future__ import annotations

from typing import Any, cast

from common import contracts
from common.config import DpoSettings
from common.data.accounting import check_limits
from common.errors import ConfigError, DataError
from common.evaluation.statistics import wilson
from common.stages import StageContext, StageReport
from common.training import checkpoint
from common.training.fit import Fitted, device_of, hand_on, lora_config, plain_model
from common.training.options import dpo_options
from common.training.preferences import Pair, accuracy, answer_logps, read_pairs
from common.training.trainer import TrainingLoop

NUM_CHECKED = 16  # pairs whose reference log-probabilities are computed a second time


def run(context: StageContext) -> StageReport:
    """Return the parent, tuned towards the preferred answers."""
    settings = cast(DpoSettings, context.settings)
    model, tokenizer = checkpoint.load(context.parent_artifact.path, context.config.model)
    pairs, counts = read_pairs(context, tokenizer, "preference")
    heldout, heldout_counts = read_pairs(context, tokenizer, "preference_heldout")
    check_limits(counts, settings.limits, context.stage)
    if not pairs:
        raise DataError(f"Stage {context.stage}: the role preference has no usable pair. Check its sources.")
    before = answer_logps(model, heldout, tokenizer.pad_token_id)
    checked = pairs[:NUM_CHECKED]
    reference = answer_logps(model, checked, tokenizer.pad_token_id)

    fitted, recorded = _train(context, model, tokenizer, pairs)

    contracts.check_reference(recorded[: len(checked)], reference[0])
    metrics: dict[str, Any] = {"steps": fitted.steps, "pairs": len(pairs)}
    if fitted.log:
        metrics["final_loss"] = fitted.log[-1]["loss"]
    if heldout:
        after = answer_logps(fitted.model, heldout, tokenizer.pad_token_id)
        right = accuracy(after, before)
        low, high = wilson(right, len(heldout))
        metrics["preference_accuracy"] = {
            "score": round(right / len(heldout), 4), "n": len(heldout), "low": round(low, 4), "high": round(high, 4),
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


def _train(context: StageContext, model: Any, tokenizer: Any, pairs: list[Pair]) -> tuple[Fitted, list[float]]:
    """Run DPOTrainer; return the trained model and the reference log-probabilities of the chosen answers."""
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from trl import DPOConfig, DPOTrainer

    disable_progress_bar()
    settings = cast(DpoSettings, context.settings)
    mean_tokens = sum(len(p.chosen_ids) + len(p.rejected_ids) for p in pairs) / len(pairs)
    loop = TrainingLoop(context, round(settings.batch_pairs * mean_tokens))
    options = dpo_options(
        settings, context.config.run, loop.folder, num_pairs=len(pairs), seed=context.config.seed,
        device=device_of(context.config.run), stage=context.stage,
    )  # fmt: skip
    if not options["precompute_ref_log_probs"]:
        raise ConfigError(
            f"{context.stage}.train.precompute_ref_log_probs=false: the reference is always precomputed here."
        )
    try:
        arguments = DPOConfig(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{context.stage}.train: TRL refuses these options: {error}") from error
    columns = ("prompt", "chosen", "rejected")
    dataset = Dataset.from_list([{key: pair.row[key] for key in columns} for pair in pairs])
    trainer = DPOTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=lora_config(settings),
    )
    recorded = [float(value) for value in trainer.train_dataset["ref_chosen_logps"][:NUM_CHECKED]]
    log = loop.run(trainer)
    return Fitted(plain_model(trainer), log, loop.steps, loop.seconds, loop.steps * loop.tokens_per_step), recorded
