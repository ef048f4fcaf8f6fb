"""Preference tuning with KTO (Ethayarajh et al. 2024, arXiv 2402.01306): single answers, wanted or unwanted.

Usage: named by a pipeline as `kto: {kind: kto, from: sft}`.

Answers come with a label, or in pairs: a pair gives two rows, its chosen answer as wanted and its rejected one as
unwanted. `batch_pairs` pairs are twice as many rows. The reference is the stage before it, computed once and checked as
for DPO. The reference point of the loss is estimated from answers that belong to other prompts of the batch (section
4.1 of the paper). Where wanted and unwanted answers differ in number, the rarer side weighs more (section 4.2).
"""

from __future__ import annotations

import itertools
from typing import Any, cast

from common.config.kinds import Kind
from common.config.stages import KtoSettings
from common.models import contracts
from common.stage import StageContext, StageReport
from common.stages.preference import Tuning, check_precomputed
from common.training.patches import token_kto_trainer

SIDES = 2  # of a pair
LEAST, MOST = 1.0, 4 / 3  # of the wanted side's weight, in units of the unwanted side's: section 4.2 of the paper
WEIGHTS = ("desirable_weight", "undesirable_weight")  # as TRL calls them


def run(context: StageContext) -> StageReport:
    """Return the parent, tuned towards the wanted answers. Raises ContractError when it is not the reference."""
    from trl import KTOConfig

    tuning = Tuning(context, singles=True)
    places, expected = tuning.parent_logps()
    rows: list[dict[str, Any]] = [
        {"prompt_ids": ids[:start], "completion_ids": ids[start:], "label": label}
        for pair in tuning.pairs
        for (ids, start), label in zip(pair.sides, pair.labels, strict=True)
    ]
    wanted = sum(row["label"] for row in rows)
    weights = _weights(context, wanted, len(rows) - wanted)
    trainer = tuning.trainer_of_parent(token_kto_trainer(), KTOConfig, rows, rows_per_pair=SIDES, derived=weights)
    tuning.require_finite_reference(trainer, ("ref_logps",))
    recorded = trainer.train_dataset["ref_logps"]
    starts = list(itertools.accumulate((len(pair.sides) for pair in tuning.pairs), initial=0))
    sides = [float(recorded[row]) for place in places for row in range(starts[place], starts[place + 1])]
    contracts.check_reference(sides, expected)
    trained = tuning.train(trainer)
    del trainer  # and the state of its optimizer, before the held-out pairs are measured again
    if all(len(pair.sides) == SIDES for pair in tuning.pairs):
        return tuning.save(trained)
    options = dict.fromkeys(WEIGHTS, 1.0) | weights | cast(KtoSettings, context.settings).train
    facts = {"wanted": wanted, "unwanted": len(rows) - wanted, **{name: options[name] for name in WEIGHTS}}
    return tuning.save(trained, {"answers": facts})


def weights_for(wanted: int, unwanted: int) -> dict[str, float]:
    """Return the weights of both sides for their numbers; none where both can weigh 1.

    The paper wants n_D * lambda_D / (n_U * lambda_U) in [1, 4/3] (Ethayarajh et al. 2024, section 4.2). Where it is not
    the rarer side gets the weight that makes it 1, as it is with pairs.
    """
    if not wanted or not unwanted or LEAST <= wanted / unwanted <= MOST:
        return {}
    rarer = WEIGHTS[0] if wanted < unwanted else WEIGHTS[1]
    return {rarer: round(max(wanted, unwanted) / min(wanted, unwanted), 4)}


def _weights(context: StageContext, wanted: int, unwanted: int) -> dict[str, float]:
    """Return the weights that follow from the numbers of answers, and say so; none where the user sets one."""
    if cast(KtoSettings, context.settings).train.keys() & set(WEIGHTS):
        return {}
    weights = weights_for(wanted, unwanted)
    for name, value in weights.items():
        context.console.line(
            f"  {context.stage}: {name}={value:g}, as {wanted:,} answers are wanted and {unwanted:,} are not; set "
            f"{context.stage}.train.{name} for another", always=True,
        )  # fmt: skip
    return weights


KIND = Kind(
    name="kto", settings=KtoSettings, run=run, check=check_precomputed, roles=("preference", "preference_heldout"),
    reads=("sample",), shareable=True, reference=True,
    # The beta of the paper and the rate of TRL. Both sides of a pair weigh alike.
    defaults={"beta": 0.1, "learning_rate": 1.0e-6, "precompute_ref_log_probs": True},
    phrase="Kahneman-Tversky optimisation", part="alignment",
)  # fmt: skip
