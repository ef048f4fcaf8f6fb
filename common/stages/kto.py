"""Preference tuning with KTO (Ethayarajh et al. 2024, arXiv 2402.01306): single answers, wanted or unwanted.

Usage: named by a pipeline as `kto: {kind: kto, from: sft}`.

Each pair gives two rows, its chosen answer as wanted and its rejected one as unwanted, so `batch_pairs` pairs are twice
as many rows. The reference is the stage before it, computed once and checked as for DPO; the reference point of the
loss is estimated from answers that belong to other prompts of the batch (section 4.1 of the paper).
"""

from __future__ import annotations

from typing import Any, cast

from common.config.stages import KtoSettings
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
from common.training.rows.preferences import Pair, answer_logps
from common.training.speed.scoring import scoring

# The beta of the paper, the rate of TRL; wanted and unwanted answers weigh alike, since pairs give as many of each.
DEFAULTS = {"beta": 0.1, "learning_rate": 1.0e-6, "precompute_ref_log_probs": True}


def run(context: StageContext) -> StageReport:
    """Return the parent, tuned towards the wanted answers and away from the unwanted ones."""
    return tune(context, _train)


def _train(context: StageContext, model: Any, tokenizer: Any, pairs: list[Pair], heldout: HeldOut) -> TrainResult:
    """Run KTOTrainer. Raises ContractError when its reference is not the parent."""
    from trl import KTOConfig, KTOTrainer

    places = checked_pairs(pairs, context.config.run)
    chosen, rejected = answer_logps(model, [pairs[place] for place in places], tokenizer.pad_token_id)
    loop = loop_for(context, pairs)
    arguments = arguments_for(KTOConfig, context, loop, num_pairs=len(pairs), rows_per_pair=2, defaults=DEFAULTS)
    needs_precomputed(context, arguments)
    learner = learner_of(context, model)
    rows = [
        {"prompt": pair.row["prompt"], "completion": pair.row[side], "label": side == "chosen"}
        for pair in pairs
        for side in ("chosen", "rejected")
    ]
    train = cast(KtoSettings, context.settings).train
    with memory.phase(memory.SCORING), patches.shard_references_by_layer(), scoring(context.config.run, train):
        trainer = KTOTrainer(
            model=learner,
            ref_model=reference_of(context, model, learner),
            args=arguments,
            train_dataset=dataset_of(context, rows),
            processing_class=tokenizer,
            peft_config=adapter_for(context, learner),
            callbacks=parallel.callbacks(context.config.run),
        )
    recorded = trainer.train_dataset["ref_logps"]
    sides = [float(recorded[2 * place + side]) for side in (0, 1) for place in places]
    contracts.check_reference(sides, [*chosen, *rejected])
    trainer.ref_model = None  # its log-probabilities are computed
    return finish(trainer, loop, heldout, model)
