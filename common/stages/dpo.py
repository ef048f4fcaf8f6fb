"""Preference tuning with DPO (Rafailov et al. 2023): the answer people prefer against the one they do not.

Usage: named by a pipeline as `dpo: {kind: dpo, from: sft}`; `train.loss_type` is any of TRL's losses, or several.

The reference is the stage before it, always: its log-probabilities are computed once before training, and
checked against that stage's own checkpoint.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, cast

from common.config.stages import DpoSettings
from common.models import contracts
from common.stage import StageContext, StageReport
from common.stages.preference import (
    HeldOut,
    arguments_for,
    checked_pairs,
    dataset_of,
    finish,
    loop_for,
    needs_precomputed,
    tune,
)
from common.training import patches
from common.training.adapters import adapter_for, learner_of, reference_of
from common.training.distributed import parallel
from common.training.fit import TrainResult
from common.training.loop import memory
from common.training.loop.trainer import TrainingLoop
from common.training.rows.preferences import Pair, answer_logps
from common.training.shares import weighted_by_tokens
from common.training.speed.scoring import scoring

# Of Bioinspired-Llama-8B (Lu, Luu and Buehler, arXiv 2409.03444; lamm-mit/LLM-finetuning), where nothing else is said.
DEFAULTS = {"beta": 0.05, "learning_rate": 5.0e-7, "precompute_ref_log_probs": True}


def run(context: StageContext) -> StageReport:
    """Return the parent, tuned towards the preferred answers."""
    return tune(context, _train)


def _train(context: StageContext, model: Any, tokenizer: Any, pairs: list[Pair], heldout: HeldOut) -> TrainResult:
    """Run DPOTrainer. Raises ContractError when its reference is not the parent."""
    places = checked_pairs(pairs, context.config.run)
    expected, _ = answer_logps(model, [pairs[place] for place in places], tokenizer.pad_token_id)
    loop = loop_for(context, pairs)
    trainer = trainer_for(context, model, tokenizer, pairs, loop)
    recorded = trainer.train_dataset["ref_chosen_logps"]
    contracts.check_reference([float(recorded[place]) for place in places], expected)
    trainer.ref_model = None  # its log-probabilities are computed
    return finish(trainer, loop, heldout, model)


@functools.cache
def token_dpo_trainer() -> Any:
    """Return the DPOTrainer subclass; a function, so that importing this module does not import TRL."""
    from trl import DPOTrainer

    def learned(batch: Mapping[str, Any]) -> int:
        chosen, _ = batch["completion_mask"].chunk(2)
        return int(chosen[:, 1:].sum())

    class TokenDpoTrainer(weighted_by_tokens(DPOTrainer, learned)):  # type: ignore[misc] # TRL is untyped
        """DPOTrainer whose term `sft` is the mean over all chosen tokens of a step, however it is split."""

        loss_weights: list[float]

        def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
            weights: list[float] = self.loss_weights
            pairs = zip(self.loss_types, weights, strict=True)
            self.loss_weights = [weight * self.share if kind == "sft" else weight for kind, weight in pairs]
            try:
                return super()._compute_loss(model, inputs, return_outputs)
            finally:
                self.loss_weights = weights

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            # TRL writes a model card per checkpoint; ours is written once, for the whole chain.
            super(DPOTrainer, self)._save_checkpoint(model, trial)

    return TokenDpoTrainer


def trainer_for(context: StageContext, model: Any, tokenizer: Any, pairs: list[Pair], loop: TrainingLoop) -> Any:
    """Return TRL's trainer over pairs, with the log-probabilities of its reference, the parent, computed."""
    from trl import DPOConfig

    arguments = arguments_for(DPOConfig, context, loop, num_pairs=len(pairs), defaults=DEFAULTS)
    needs_precomputed(context, arguments)
    learner = learner_of(context, model)
    columns = ("prompt", "chosen", "rejected")
    train = cast(DpoSettings, context.settings).train
    with memory.phase(memory.SCORING), patches.shard_references_by_layer(), scoring(context.config.run, train):
        return token_dpo_trainer()(
            model=learner,
            ref_model=reference_of(context, model, learner),
            args=arguments,
            train_dataset=dataset_of(context, [{key: pair.row[key] for key in columns} for pair in pairs]),
            processing_class=tokenizer,
            peft_config=adapter_for(context, learner),
            callbacks=parallel.callbacks(context.config.run),
        )
