"""Preference tuning with DPO (Rafailov et al. 2023): the answer people prefer against the one they do not.

Usage: named by a pipeline as `dpo: {kind: dpo, from: sft}`; `train.loss_type` is any of TRL's losses, or several.

The reference is always the stage before. Its log-probabilities are computed once before training, and checked against
that stage's own checkpoint.
"""

from __future__ import annotations

from common.config.kinds import Kind
from common.config.stages import DpoSettings
from common.models import contracts
from common.stage import StageContext, StageReport
from common.stages.preference import Tuning, check_precomputed
from common.training.patches import token_dpo_trainer


def run(context: StageContext) -> StageReport:
    """Return the parent, tuned towards the preferred answers. Raises ContractError when it is not the reference."""
    from trl import DPOConfig

    tuning = Tuning(context)
    places, expected = tuning.parent_logps()
    rows = [pair.columns for pair in tuning.whole_pairs]
    trainer = tuning.trainer_of_parent(token_dpo_trainer(), DPOConfig, rows)
    tuning.require_finite_reference(trainer, ("ref_chosen_logps", "ref_rejected_logps"))
    recorded = trainer.train_dataset["ref_chosen_logps"]
    contracts.check_reference([float(recorded[place]) for place in places], expected[::2])
    trained = tuning.train(trainer)
    del trainer  # and the state of its optimizer, before the held-out pairs are measured again
    return tuning.save(trained)


KIND = Kind(
    name="dpo", settings=DpoSettings, run=run, check=check_precomputed, roles=("preference", "preference_heldout"),
    reads=("sample",), shareable=True, reference=True,
    # Of Bioinspired-Llama-8B (Lu, Luu and Buehler, arXiv 2409.03444; lamm-mit/LLM-finetuning).
    defaults={"beta": 0.05, "learning_rate": 5.0e-7, "precompute_ref_log_probs": True},
    phrase="direct preference optimisation", part="alignment",
)  # fmt: skip
