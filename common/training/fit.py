"""Run TRL's SFTTrainer over prepared rows, then check and save its result.

Usage: `trained = fit(context, model, tokenizer, rows)`, then
`check_and_save(context, trained, tokenizer, probe=ids)`.

Shared by the stages that learn from tokens (base, cpt, sft). The other stages have trainers of their own and save
through the same contracts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from common.config.kinds import kind_of
from common.config.methods import chosen
from common.config.stages import ContinuedSettings, TrainingSettings, WithMethods
from common.data.accounting import RowCount
from common.errors import ConfigError, RecipeError
from common.models import checkpoint, contracts
from common.models.clean_load import CleanProcess
from common.models.growth.record import carry
from common.models.sparsity.record import keep
from common.stage import StageContext, StageReport
from common.training import adapters, patches
from common.training.distributed import parallel, ranks
from common.training.freezing import freeze
from common.training.loop import memory
from common.training.loop.carried import keep_state, resume_state
from common.training.loop.trainer import TrainingLoop, lean_sft_trainer
from common.training.loop.validation import Validation
from common.training.methods.applied import Applied, check_experts
from common.training.methods.ordered import scores_of_losses
from common.training.methods.teacher import read_once, teacher_of
from common.training.options import EXPERTS_LOSS, sft_options, without_experts
from common.training.rows.packing import RowCollator
from common.training.rows.probe import probe_batches
from common.training.rows.rows import TrainingRows
from common.training.speed.recomputing import keeps_frozen, spare_frozen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE_TOKENS = 48

# One clean process serves all stages of a run; `common.engine.run` starts and closes it.
clean_process = CleanProcess()


@dataclass
class TrainResult:
    """A model and how its training went; the defaults are of one that was taken as it is."""

    model: Any
    log: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    tokens: int = 0
    measured: dict[str, Any] = field(default_factory=dict)  # further metrics: an adapter's merge, guard, validation


def fit(context: StageContext, model: Any, tokenizer: PreTrainedTokenizerBase, rows: TrainingRows) -> TrainResult:
    """Train to the end of the budget, resuming from the trainer checkpoint of a killed run."""
    settings = cast(TrainingSettings, context.settings)
    loop, learned = TrainingLoop(context, settings.batch_tokens), freeze(context, model)
    trainer = trainer_for(context, model, tokenizer, rows, loop.folder)
    validation = Validation(context, rows.validation)
    if rows.validation is not None:
        trainer.add_callback(validation.callback(trainer))
    log = loop.run(trainer)
    keep_state(context, trainer)
    model = validation.chosen(trained_model(context, trainer))
    mixed = {"mixture": rows.mixture, "mixture_course": rows.course} if rows.mixture else {}
    continued = {"continued": rows.continued} if rows.continued else {}
    measured = {**loop.measured(), **learned, **validation.measured(), **mixed, **continued}
    if trainer.applied is not None:
        if model is not None:
            trainer.applied.detach(model)
        measured |= trainer.applied.measured(rows.methods or {}, log)
    return TrainResult(model, log, loop.steps, loop.seconds, loop.steps * settings.batch_tokens, measured)


def trainer_for(
    context: StageContext, model: Any, tokenizer: PreTrainedTokenizerBase, rows: TrainingRows, folder: Path
) -> Any:
    """Return TRL's trainer over a stage's rows, working in `folder`. Raises ConfigError for options TRL refuses."""
    from trl import SFTConfig

    settings = cast(TrainingSettings, context.settings)
    applied = Applied.of(context, rows.steps)
    options = sft_options(settings, context.config, folder, steps=rows.steps, stage=context.stage)
    isolated = settings.packing == "isolated"
    scores = scores_of_losses(settings)
    collator = RowCollator(tokenizer.pad_token_id, settings.sequence_length, scores) if isolated else None
    trainer = build_trainer(
        context, lean_sft_trainer(), SFTConfig, options, model, rows.dataset, tokenizer, data_collator=collator
    )
    trainer.lean = isolated and not context.config.run.token_metrics  # TRL's own rows go through TRL's own loss
    if isinstance(settings, ContinuedSettings) and settings.train_only is not None:
        trainer.add_callback(spare_frozen(trainer, keeps=keeps_frozen(context)))
    if isinstance(settings, WithMethods) and settings.optimizer == "carry":
        trainer.add_callback(resume_state(context, trainer))
    if applied is not None:
        trainer.applied = applied
        trainer.add_callback(applied.callback(trainer))
        if trainer.aux_loss_enabled:  # where a plan knows the model, it has been refused there
            check_experts(context.stage, settings)
        applied.attach(trainer.model)
        applied.teacher = teacher_of(context, trainer) if applied.needs_teacher else None
        if applied.keeps:
            assert collator is not None, "terms of the loss need rows that are packed here"
            collator.kept = read_once(context, trainer, rows.dataset, collator, applied)
        if applied.probe_tokens:
            applied.probe, _ = probe_batches(context, tokenizer, applied.probe_tokens, settings.sequence_length)
    return trainer


def build_trainer(
    context: StageContext, trainer_class: Any, config_class: Any, options: dict[str, Any], model: Any, rows: Any,
    tokenizer: Any, *, task: str = "CAUSAL_LM", **more: Any,
) -> Any:  # fmt: skip
    """Return a trainer of TRL over prepared rows. Raises ConfigError for options that TRL refuses."""
    adapter, callbacks = adapters.adapter_for(context, model, task), parallel.callbacks(context.config.run)
    if hasattr(config_class, EXPERTS_LOSS):
        options = without_experts(options, model, context.stage)
    try:
        arguments = patches.use_one_gpu(config_class(**{**kind_of(context.kind).defaults, **options}))
        return patches.without_extras(trainer_class)(
            model=model, args=arguments, train_dataset=rows, processing_class=tokenizer, peft_config=adapter,
            callbacks=callbacks, **more,
        )  # fmt: skip
    except RecipeError:
        raise
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"{context.stage}.train: TRL refuses these options: {error}") from error


def trained_model(context: StageContext, trainer: Any) -> Any:
    """Return the trained model, whole and unwrapped, in the first process; None in the others."""
    is_reward, source = kind_of(context.kind).makes == "reward model", context.config.model

    def load(folder: Path) -> Any:
        if not adapters.is_adapted(trainer.model):
            return checkpoint.load_reward_model(folder, source) if is_reward else checkpoint.load_model(folder, source)
        return adapters.load_adapter(_adapted_parent(context), folder)

    return parallel.whole_model(trainer, context.config.run, context.work / "gathered", load)


def _adapted_parent(context: StageContext) -> Any:
    """Return the parent's model, never quantised, as a stage's adapter trained on it."""
    if kind_of(context.kind).makes == "reward model":
        return adapters.reward_model_to_train(context, quantised=False)
    return adapters.whole_parent(context)


def merge_adapter(context: StageContext, trained: TrainResult, probe: list[int]) -> TrainResult:
    """Merge an adapter into the unquantised parent and save it in a folder of its own. A whole model stays as it is.

    Only the first process has a model to merge.
    """
    if not ranks.is_main_process() or not adapters.is_adapted(trained.model):
        return trained
    parent = _adapted_parent(context)
    adapted = trained.model if getattr(trained.model, "is_quantized", False) else trained.model.to("cpu")
    merged, measured = adapters.merge(
        adapted, parent, probe[:PROBE_TOKENS], context.out / adapters.FOLDER, context.parent_artifact
    )
    return replace(trained, model=merged, measured={**trained.measured, **measured})


def check_and_save(
    context: StageContext, trained: TrainResult, tokenizer: PreTrainedTokenizerBase, *, probe: list[int]
) -> dict[str, Any]:
    """Check every contract, save, and check again in a clean process. Return the further metrics of the stage.

    Only the first process does so. Raises ContractError; then nothing of the stage is committed.
    """
    if not ranks.is_main_process():
        return {}
    probe = probe[:PROBE_TOKENS]
    trained = merge_adapter(context, trained, probe)
    model = trained.model.to("cpu")
    for method, own in chosen(context.settings):
        if method.finish is not None:
            method.finish(model, tokenizer, own)
    contracts.check_vocabulary(model, tokenizer)
    if model.can_generate():
        contracts.check_stop_tokens(model, tokenizer)
        contracts.check_tied(model)
    if context.parent is not None:
        parent_tokenizer = checkpoint.load_tokenizer(context.parent_artifact.path, context.config.model)
        contracts.check_template(tokenizer, parent_tokenizer)
    trusted = context.config.model.trust_remote_code
    with memory.phase(memory.SAVING):
        checkpoint.save(model, tokenizer, context.out, context.config.model.dtype)
        logits = contracts.probe_logits(model, probe)
        contracts.check_saved(context.out, probe, logits, clean_process, context.work, trust_remote_code=trusted)
    if context.parent is not None:
        if not kind_of(context.kind).changes_tokenizer:
            contracts.check_tokenizer(context.out, context.parent_artifact.path)
        carry(context.parent_artifact.path, context.out)
        if (kept := keep(context.parent_artifact.path, context.out)) is not None:
            trained = replace(trained, measured={**trained.measured, "kept_zeros": kept.zeros})
    lines = (json.dumps(record) + "\n" for record in trained.log)
    (context.out / "log.jsonl").write_text("".join(lines), encoding="utf-8")
    return trained.measured


def text_probe(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens on which a stage that learns from text compares its saved model with the trained one."""
    ids: list[int] = tokenizer("The quick brown fox jumps over the lazy dog.", add_special_tokens=False).input_ids
    return ids


def report(
    context: StageContext, trained: TrainResult, metrics: Mapping[str, Any], counts: Iterable[RowCount],
    read: Mapping[str, int] | None = None,
) -> StageReport:  # fmt: skip
    """Return the report of a stage that has trained, for the manifest; `read` is where its rows are kept as tokens."""
    loss = trained.log[-1]["loss"] if trained.log else None
    rows = [count.as_dict() for count in counts]
    metrics = {"final_loss": loss, "steps": trained.steps, **metrics}
    return StageReport(metrics, trained.tokens, trained.seconds, rows, context.corpus.sources(), dict(read or {}))
