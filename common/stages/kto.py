"""Preference tuning with KTO (Ethayarajh et al. 2024, arXiv 2402.01306): single answers, wanted or unwanted.

Usage: named by a pipeline as `kto: {kind: kto, from: sft}`.

Each pair gives two rows, its chosen answer as wanted and its rejected one as unwanted, so `batch_pairs` pairs are twice
as many rows. The reference is the stage before it, computed once and checked as for DPO; the reference point of the
loss is estimated from answers that belong to other prompts of the batch (section 4.1 of the paper).
"""

from __future__ import annotations

from typing import Any, cast

from common import contracts
from common.stage_settings import KtoSettings
from common.stages import StageContext, StageReport
from common.stages.preference import (
    HeldOut,
    arguments_for,
    checked_logps,
    dataset_of,
    finish,
    loop_for,
    needs_precomputed,
    tune,
)
from common.training.adapters import adapter_for, learner_of
from common.training.fit import Fitted
from common.training.preferences import Pair
from common.training.scoring import scoring

# The beta of the paper, the rate of TRL; wanted and unwanted answers weigh alike, since pairs give as many of each.
DEFAULTS = {"beta": 0.1, "learning_rate": 1.0e-6, "precompute_ref_log_probs": True}


def run(context: StageContext) -> StageReport:
    """Return the parent, tuned towards the wanted answers and away from the unwanted ones."""
    return tune(context, _train)


def _train(context: StageContext, model: Any, tokenizer: Any, pairs: list[Pair], heldout: HeldOut) -> Fitted:
    """Run KTOTrainer. Raises ContractError when its reference is not the parent."""
    from trl import KTOConfig, KTOTrainer

    chosen, rejected = checked_logps(model, pairs, tokenizer.pad_token_id)
    loop = loop_for(context, pairs)
    arguments = arguments_for(KTOConfig, context, loop, num_pairs=len(pairs), rows_per_pair=2, defaults=DEFAULTS)
    needs_precomputed(context, arguments)
    learner = learner_of(context, model)
    rows = [
        {"prompt": pair.row["prompt"], "completion": pair.row[side], "label": side == "chosen"}
        for pair in pairs
        for side in ("chosen", "rejected")
    ]
    with scoring(context.config.run, cast(KtoSettings, context.settings).train):
        trainer = KTOTrainer(
            model=learner,
            ref_model=None if learner is model else model,  # the unquantised one
            args=arguments,
            train_dataset=dataset_of(context, rows),
            processing_class=tokenizer,
            peft_config=adapter_for(context, learner),
        )
    recorded = [float(value) for value in trainer.train_dataset["ref_logps"][: 2 * len(chosen)]]
    contracts.check_reference(recorded[::2] + recorded[1::2], [*chosen, *rejected])
    trainer.ref_model = None  # its log-probabilities are computed
    return finish(trainer, loop, heldout, model)
