"""Preference tuning with KTO (Ethayarajh et al. 2024, arXiv 2402.01306): single answers, wanted or unwanted.

Usage: named by a pipeline as `kto: {kind: kto, from: sft}`.

Each pair gives two rows, its chosen answer as wanted and its rejected one as unwanted, so `batch_pairs` pairs are twice
as many rows. The reference is the stage before it, computed once and checked as for DPO. The reference point of the
loss is estimated from answers that belong to other prompts of the batch (section 4.1 of the paper).
"""

from __future__ import annotations

from typing import Any

from common.config.kinds import Kind
from common.config.stages import KtoSettings
from common.models import contracts
from common.stage import StageContext, StageReport
from common.stages.preference import HeldOut, PairTraining, check_precomputed, checked_pairs, tune
from common.training.fit import TrainResult
from common.training.rows.preferences import answer_logps

SIDES = ("chosen", "rejected")


def run(context: StageContext) -> StageReport:
    """Return the parent, tuned towards the wanted answers and away from the unwanted ones."""
    return tune(context, _train)


KIND = Kind(
    name="kto", settings=KtoSettings, run=run, check=check_precomputed, roles=("preference", "preference_heldout"),
    reads=("sample",), shareable=True, reference=True,
    # The beta of the paper and the rate of TRL. Both sides weigh alike, since pairs give as many rows of each.
    defaults={"beta": 0.1, "learning_rate": 1.0e-6, "precompute_ref_log_probs": True},
    phrase="Kahneman-Tversky optimisation", part="alignment",
)  # fmt: skip


def _train(training: PairTraining, model: Any, heldout: HeldOut) -> TrainResult:
    """Run KTOTrainer. Raises ContractError when its reference is not the parent."""
    from trl import KTOConfig, KTOTrainer

    pairs = training.pairs
    places = checked_pairs(pairs, training.run)
    chosen, rejected = answer_logps(model, [pairs[place] for place in places], training.tokenizer.pad_token_id)
    rows = [
        {"prompt": pair.row["prompt"], "completion": pair.row[side], "label": side == "chosen"}
        for pair in pairs
        for side in SIDES
    ]
    trainer = training.trainer_with_reference(KTOTrainer, KTOConfig, model, rows, rows_per_pair=len(SIDES))
    recorded = trainer.train_dataset["ref_logps"]
    sides = [float(recorded[len(SIDES) * place + side]) for side in (0, 1) for place in places]
    contracts.check_reference(sides, [*chosen, *rejected])
    trainer.ref_model = None  # its log-probabilities are computed
    return training.finish(trainer, heldout, model)
