"""Run TRL's SFTTrainer over prepared rows, and hand on a checked checkpoint.

Usage: `fitted = fit(context, model, tokenizer, rows)`, then `hand_on(context, fitted, tokenizer, parent, rows)`.

Shared by the stages that learn from tokens (base, cpt, sft); preference tuning has its own trainer but hands on
through the same contracts.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from common import contracts
from common.clean_load import CleanProcess
from common.config import RunSettings
from common.errors import ConfigError
from common.stage_settings import LearningSettings, TrainingSettings
from common.stages import StageContext, StageReport
from common.training import checkpoint
from common.training.options import sft_options
from common.training.packing import RowCollator
from common.training.rows import TrainingRows
from common.training.trainer import TrainingLoop, lean_sft_trainer, write_log

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
PROBE_TOKENS = 48

# One clean process serves all stages of a run; `common.run` starts and closes it.
clean_process = CleanProcess()


@dataclass
class Fitted:
    """A trained model and how its training went."""

    model: Any
    log: list[dict[str, Any]]
    steps: int
    seconds: float
    tokens: int


def device_of(run: RunSettings) -> str:
    """Return cpu or cuda. Raises ConfigError when CUDA is asked for and there is none."""
    import torch

    if run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device=cuda, but this machine has no CUDA device. Use run.device=cpu or profile=tiny.")
    return "cuda" if run.device != "cpu" and torch.cuda.is_available() else "cpu"


def lora_config(settings: LearningSettings, task: str = "CAUSAL_LM") -> Any:
    """Return peft's LoraConfig for the stage's `lora:` block, or None for full fine-tuning."""
    if settings.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(**{"task_type": task, **settings.lora})


def fit(context: StageContext, model: Any, tokenizer: PreTrainedTokenizerBase, rows: TrainingRows) -> Fitted:
    """Train to the end of the budget, resuming what a killed run left."""
    from trl import SFTConfig

    settings = cast(TrainingSettings, context.settings)
    loop = TrainingLoop(context, settings.batch_tokens)
    options = sft_options(
        settings, context.config.run, loop.folder, steps=rows.steps, seed=context.config.seed,
        device=device_of(context.config.run), stage=context.stage,
    )  # fmt: skip
    isolated = settings.packing == "isolated"
    try:
        arguments = SFTConfig(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{context.stage}.train: TRL refuses these options: {error}") from error
    trainer_class = lean_sft_trainer()
    trainer = trainer_class(
        model=model,
        args=arguments,
        train_dataset=rows.dataset,
        processing_class=tokenizer,
        data_collator=RowCollator(tokenizer.pad_token_id, settings.sequence_length) if isolated else None,
        peft_config=lora_config(settings),
    )
    trainer.lean = isolated  # TRL's own rows go through TRL's own loss
    log = loop.run(trainer)
    return Fitted(plain_model(trainer), log, loop.steps, loop.seconds, loop.steps * settings.batch_tokens)


def plain_model(trainer: Any) -> Any:
    """Return the trained model as it was before accelerate wrapped its forward in autocast."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)


def merge_adapter(model: Any, probe: list[int], out: Path) -> tuple[Any, dict[str, float]]:
    """Merge a LoRA adapter into its base, keep it beside the model, and measure what merging changed."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return model, {}
    model.save_pretrained(out / "adapter")
    (out / "adapter" / "README.md").unlink(missing_ok=True)
    before = contracts.probe_logits(model, probe)
    merged = model.merge_and_unload()
    return merged, {
        "adapter_merge_difference": contracts.check_adapter_merge(before, contracts.probe_logits(merged, probe))
    }


def hand_on(
    context: StageContext,
    fitted: Fitted,
    tokenizer: PreTrainedTokenizerBase,
    *,
    probe: list[int],
    parent_tokenizer: PreTrainedTokenizerBase | None,
) -> dict[str, float]:
    """Check every promise, save, and check again in a clean process. Returns what was measured on the way.

    Raises ContractError; nothing of the stage is committed then.
    """
    probe = probe[:PROBE_TOKENS]
    model = fitted.model.to("cpu")
    model, measured = merge_adapter(model, probe, context.out)
    contracts.check_vocabulary(model, tokenizer)
    if model.can_generate():
        contracts.check_stop_tokens(model, tokenizer)
        contracts.check_tied(model)
    if parent_tokenizer is not None:
        contracts.check_template(tokenizer, parent_tokenizer)
    checkpoint.save(model, tokenizer, context.out, context.config.model.dtype)
    logits = contracts.probe_logits(model, probe)
    contracts.check_saved(
        context.out,
        probe,
        logits,
        clean_process,
        context.work,
        trust_remote_code=context.config.model.trust_remote_code,
    )
    if context.parent is not None:
        contracts.check_tokenizer(context.out, context.parent_artifact.path)
    write_log(fitted.log, context.out / "log.jsonl")
    return measured


def report(context: StageContext, fitted: Fitted, rows: TrainingRows, measured: dict[str, float]) -> StageReport:
    """Return the stage's report for the manifest."""
    return StageReport(
        metrics={"final_loss": fitted.log[-1]["loss"] if fitted.log else None, "steps": fitted.steps, **measured},
        tokens=fitted.tokens,
        train_seconds=fitted.seconds,
        rows=rows.accounting(),
        sources=context.corpus.sources(),
    )
