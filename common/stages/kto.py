"""Preference tuning with KTO (Ethayarajh et al. 2024, arXiv 2402.01306): single answers, wanted or unwanted.

Usage: named by a pipeline as `kto: {kind: kto, from: sft}`.

Each pair gives two rows, its chosen answer as wanted and its rejected one as unwanted, so `batch_pairs` pairs are twice
as many rows. The reference is the stage before it, computed once and checked as for DPO. The reference point of the
loss is estimated from answers that belong to other prompts of the batch (section 4.1 of the paper).
"""

from __future__ import annotations

from common.config.kinds import Kind
from common.config.stages import KtoSettings
from common.models import contracts
from common.stage import StageContext, StageReport
from common.stages.preference import Tuning, check_precomputed
from common.training.patches import token_kto_trainer

SIDES = ("chosen", "rejected")


def run(context: StageContext) -> StageReport:
    """Return the parent, tuned towards the wanted answers. Raises ContractError when it is not the reference."""
    from trl import KTOConfig

    tuning = Tuning(context)
    places, (chosen, rejected) = tuning.parent_logps()
    rows = [
        {"prompt_ids": ids[: pair.start], "completion_ids": ids[pair.start :], "label": side == "chosen"}
        for pair in tuning.pairs
        for side, ids in zip(SIDES, (pair.chosen_ids, pair.rejected_ids), strict=True)
    ]
    trainer = tuning.trainer_of_parent(token_kto_trainer(), KTOConfig, rows, rows_per_pair=len(SIDES))
    recorded = trainer.train_dataset["ref_logps"]
    sides = [float(recorded[len(SIDES) * place + side]) for side in (0, 1) for place in places]
    contracts.check_reference(sides, [*chosen, *rejected])
    trained = tuning.train(trainer)
    del trainer  # and the state of its optimizer, before the held-out pairs are measured again
    return tuning.save(trained)


KIND = Kind(
    name="kto", settings=KtoSettings, run=run, check=check_precomputed, roles=("preference", "preference_heldout"),
    reads=("sample",), shareable=True, reference=True,
    # The beta of the paper and the rate of TRL. Both sides weigh alike, since pairs give as many rows of each.
    defaults={"beta": 0.1, "learning_rate": 1.0e-6, "precompute_ref_log_probs": True},
    phrase="Kahneman-Tversky optimisation", part="alignment",
)  # fmt: skip
