"""Preference tuning with DPO (Rafailov et al. 2023): the answer people prefer against the one they do not.

Usage: named by a pipeline as `dpo: {kind: dpo, from: sft}`; `train.loss_type` is any of TRL's losses, or several.

The reference is always the stage before. Its log-probabilities are computed once before training, and checked against
that stage's own checkpoint.
"""

from __future__ import annotations

from typing import Any

from common.config.kinds import Kind
from common.config.stages import DpoSettings
from common.models import contracts
from common.stage import StageContext, StageReport
from common.stages.preference import HeldOut, PairTraining, check_precomputed, checked_pairs, tune
from common.training.fit import TrainResult
from common.training.patches import token_dpo_trainer
from common.training.rows.preferences import answer_logps


def run(context: StageContext) -> StageReport:
    """Return the parent, tuned towards the preferred answers."""
    return tune(context, _train)


KIND = Kind(
    name="dpo", settings=DpoSettings, run=run, check=check_precomputed, roles=("preference", "preference_heldout"),
    reads=("sample",), shareable=True, reference=True,
    # Of Bioinspired-Llama-8B (Lu, Luu and Buehler, arXiv 2409.03444; lamm-mit/LLM-finetuning).
    defaults={"beta": 0.05, "learning_rate": 5.0e-7, "precompute_ref_log_probs": True},
    phrase="direct preference optimisation", part="alignment",
)  # fmt: skip


def _train(training: PairTraining, model: Any, heldout: HeldOut) -> TrainResult:
    """Run DPOTrainer. Raises ContractError when its reference is not the parent."""
    from trl import DPOConfig

    pairs = training.pairs
    places = checked_pairs(pairs, training.run)
    expected, _ = answer_logps(model, [pairs[place] for place in places], training.tokenizer.pad_token_id)
    rows = [{key: pair.row[key] for key in ("prompt", "chosen", "rejected")} for pair in pairs]
    trainer = training.trainer_with_reference(token_dpo_trainer(), DPOConfig, model, rows)
    recorded = trainer.train_dataset["ref_chosen_logps"]
    contracts.check_reference([float(recorded[place]) for place in places], expected)
    trainer.ref_model = None  # its log-probabilities are computed
    return training.finish(trainer, heldout, model)
