"""Preference tuning with ORPO (Hong et al. 2024, arXiv 2403.07691): no reference, fine-tuning and odds in one loss.

Usage: named by a pipeline as `orpo: {kind: orpo, from: sft}`; `train.beta` is the paper's lambda (equation 6).

TRL's trainer cuts and joins texts in its own way; here it reads the tokens that every other stage reads, with the stop
token of the chat template at the end of each answer.
"""

from __future__ import annotations

from typing import Any

from common.stage import StageContext, StageReport
from common.stages.preference import HeldOut, arguments_for, dataset_of, finish, loop_for, tune
from common.training.adapters import adapter_for, learner_of
from common.training.distributed import parallel
from common.training.fit import TrainResult
from common.training.patches import token_orpo_trainer
from common.training.rows.preferences import Pair

# Of Bioinspired-Llama-8B (Lu, Luu and Buehler, arXiv 2409.03444; lamm-mit/LLM-finetuning), where nothing else is said.
DEFAULTS = {"beta": 0.1, "learning_rate": 3.0e-6}


def run(context: StageContext) -> StageReport:
    """Return the parent, fine-tuned on the chosen answers and turned away from the rejected ones."""
    return tune(context, _train, referenced=False)


def _train(context: StageContext, model: Any, tokenizer: Any, pairs: list[Pair], heldout: HeldOut) -> TrainResult:
    """Run ORPOTrainer."""
    from trl.experimental.orpo import ORPOConfig

    loop = loop_for(context, pairs)
    arguments = arguments_for(ORPOConfig, context, loop, num_pairs=len(pairs), defaults=DEFAULTS)
    texts = {"prompt": "", "chosen": "", "rejected": ""}  # the trainer asks for them; it reads the tokens
    rows = [
        {**texts, "chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids, "start": pair.start}
        for pair in pairs
    ]
    learner = learner_of(context, model)
    trainer = token_orpo_trainer()(
        model=learner,
        args=arguments,
        train_dataset=dataset_of(context, rows),
        processing_class=tokenizer,
        peft_config=adapter_for(context, learner),
        callbacks=parallel.callbacks(context.config.run),
    )
    return finish(trainer, loop, heldout, model)
