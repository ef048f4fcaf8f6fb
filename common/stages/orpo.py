"""Preference tuning with ORPO (Hong et al. 2024, arXiv 2403.07691): no reference, fine-tuning and odds in one loss.

Usage: named by a pipeline as `orpo: {kind: orpo, from: sft}`; `train.beta` is the paper's lambda (equation 6).

TRL's trainer cuts and joins texts in its own way. Here it reads the tokens that every other stage reads, with the stop
token of the chat template at the end of each answer.
"""

from __future__ import annotations

from common.config.kinds import Kind
from common.config.stages import OrpoSettings
from common.stage import StageContext, StageReport
from common.stages.preference import Tuning
from common.training.patches import token_orpo_trainer


def run(context: StageContext) -> StageReport:
    """Return the parent, fine-tuned on the chosen answers and turned away from the rejected ones."""
    from trl.experimental.orpo import ORPOConfig

    tuning = Tuning(context, referenced=False)
    texts = {"prompt": "", "chosen": "", "rejected": ""}  # the trainer asks for them; it reads the tokens
    rows = [
        {**texts, "chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids, "start": pair.start}
        for pair in tuning.whole_pairs
    ]
    trainer = tuning.trainer_of_parent(token_orpo_trainer(), ORPOConfig, rows)
    trained = tuning.train(trainer)
    del trainer  # and the state of its optimizer, before the held-out pairs are measured again
    return tuning.save(trained)


KIND = Kind(
    name="orpo", settings=OrpoSettings, run=run, roles=("preference", "preference_heldout"), reads=("sample",),
    shareable=True,
    # Of Bioinspired-Llama-8B (Lu, Luu and Buehler, arXiv 2409.03444; lamm-mit/LLM-finetuning).
    defaults={"beta": 0.1, "learning_rate": 3.0e-6},
    phrase="odds ratio preference optimisation", part="alignment",
)  # fmt: skip
