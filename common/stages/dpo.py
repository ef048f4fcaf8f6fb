"""Preference tuning with DPO (Rafailov et al. 2023): the answer people prefer against the one they do not.

Usage: named by a pipeline as `dpo: {kind: dpo, from: sft}`; `train.loss_type` is any of TRL's losses, or several.

The reference is the stage before it, always: its log-probabilities are computed once before training, and
checked against that stage's own checkpoint.
"""

from __future__ import annotations

from typing import Any, cast

from common import contracts
from common.stage_settings import DpoSettings
from common.stages import StageContext, StageReport
from common.stages.preference import NUM_CHECKED, arguments_for, finish, loop_for, needs_precomputed, tune
from common.training.adapters import adapter_for, learner_of
from common.training.fit import Fitted
from common.training.preferences import Pair, answer_logps
from common.training.scoring import scoring
from common.training.trainer import TrainingLoop

# Of Bioinspired-Llama-8B (Lu, Luu and Buehler, arXiv 2409.03444; lamm-mit/LLM-finetuning), where nothing else is said.
DEFAULTS = {"beta": 0.05, "learning_rate": 5.0e-7, "precompute_ref_log_probs": True}


def run(context: StageContext) -> StageReport:
    """Return the parent, tuned towards the preferred answers."""
    return tune(context, _train)


def _train(context: StageContext, model: Any, tokenizer: Any, pairs: list[Pair]) -> Fitted:
    """Run DPOTrainer. Raises ContractError when its reference is not the parent."""
    reference = answer_logps(model, pairs[:NUM_CHECKED], tokenizer.pad_token_id)
    loop = loop_for(context, pairs)
    trainer = trainer_for(context, model, tokenizer, pairs, loop)
    recorded = [float(value) for value in trainer.train_dataset["ref_chosen_logps"][:NUM_CHECKED]]
    contracts.check_reference(recorded, reference[0])
    trainer.ref_model = None  # its log-probabilities are computed
    return finish(trainer, loop)


def trainer_for(context: StageContext, model: Any, tokenizer: Any, pairs: list[Pair], loop: TrainingLoop) -> Any:
    """Return TRL's trainer over pairs, with the log-probabilities of its reference, the parent, computed."""
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from trl import DPOConfig, DPOTrainer

    disable_progress_bar()
    arguments = arguments_for(DPOConfig, context, loop, num_pairs=len(pairs), defaults=DEFAULTS)
    needs_precomputed(context, arguments)
    learner = learner_of(context, model)
    columns = ("prompt", "chosen", "rejected")
    with scoring(context.config.run, cast(DpoSettings, context.settings).train):
        return DPOTrainer(
            model=learner,
            ref_model=None if learner is model else model,  # the unquantised one
            args=arguments,
            train_dataset=Dataset.from_list([{key: pair.row[key] for key in columns} for pair in pairs]),
            processing_class=tokenizer,
            peft_config=adapter_for(context, learner),
        )
