"""The reward model: one number for an answer, learned from pairs (Bradley and Terry 1952; Ouyang et al. 2022).

Usage: named by a pipeline as `reward: {kind: reward, from: sft}`; a later stage names it in `with:` and in its rewards,
`rewards: {quality: {model: reward, weight: 1.0}}`. `reward.path` takes a finished reward model instead.

It is the stage before with a head of one number in place of the vocabulary, trained by TRL's RewardTrainer on
-log sigmoid(r(chosen) - r(rejected)) (arXiv 2203.02155, equation 1). The pairs of some prompts are kept from training.
They show how well it ranks, and whether it is as sure as it is right. The data's own held-out pairs do too, where there
are some. In the embedded worlds these are about things that no training pair asks about, which is harder: a reward
model learns to judge what it was shown. It answers nothing and sits no exam.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, cast

from common.config.kinds import Kind
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.stages import RewardSettings
from common.data.accounting import check_limits
from common.errors import ConfigError, ContractError, DataError
from common.models import checkpoint, contracts
from common.models.device import to_device
from common.models.source import check_given, fetch, taken_model
from common.rewards.ranking import ranking_facts
from common.rewards.reward_model import rewards_of
from common.stage import StageContext, StageReport
from common.stages.preference import PairTraining
from common.training.adapters import reward_model_to_train
from common.training.distributed import ranks
from common.training.fit import TrainResult, check_and_save, merge_adapter, report
from common.training.rows.preferences import Pair, read_pairs, tokenise_pair

NUM_COMPARED = 16  # conversations that two chat templates must write alike


def run(context: StageContext) -> StageReport:
    """Return a reward model, and how it ranks pairs that it has never seen."""
    from trl import RewardConfig, RewardTrainer

    settings = cast(RewardSettings, context.settings)
    tokenizer = checkpoint.load_tokenizer(context.parent_artifact.path, context.config.model)
    pairs, counts = read_pairs(context, tokenizer, "preference")
    elsewhere, more_counts = read_pairs(context, tokenizer, "preference_heldout")
    check_limits(counts, settings.limits, context.stage)
    learned, kept = _split(pairs, settings.heldout, context.config.seed)
    if not learned or not kept:
        raise DataError(
            f"Stage {context.stage} has {len(pairs)} usable pairs, of which {len(kept)} would be kept from training "
            f"({context.stage}.heldout={settings.heldout}); it needs some on both sides. Add pairs or change heldout."
        )
    if settings.path is None:
        training = PairTraining(context, tokenizer, learned)
        rows = [{"chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids} for pair in learned]
        trainer = training.trainer(RewardTrainer, RewardConfig, reward_model_to_train(context), rows, task="SEQ_CLS")
        trained = training.train(trainer)
        del trainer  # and the state of its optimizer, before pairs are ranked
        trained = merge_adapter(context, trained, learned[0].chosen_ids)
    else:
        trained = TrainResult(_take(context, tokenizer, kept))
    metrics: dict[str, Any] = {"pairs": 0 if settings.path else len(learned)}
    if ranks.is_main_process():
        to_device(trained.model, context.config.run)
        metrics |= _ranking(trained.model, kept, tokenizer)
        if elsewhere:
            metrics["elsewhere"] = _ranking(trained.model, elsewhere, tokenizer)
    metrics |= check_and_save(context, trained, tokenizer, probe=kept[0].chosen_ids)
    return report(context, trained, metrics, [*counts, *more_counts])


def check(node: Node, settings: RewardSettings, resolved: Resolved) -> None:
    """Check that a finished reward model is there, or is named by its commit."""
    if settings.path is not None:
        check_given(taken_model(settings, resolved.config), node.name)


KIND = Kind(
    name="reward", settings=RewardSettings, run=run, check=check, makes="reward model",
    roles=("preference", "preference_heldout"), reads=("sample",), shareable=True,
    # Keeps rewards around zero (Eisenstein et al. 2023, arXiv 2312.09244, equation 2); only differences are learned.
    defaults={"center_rewards_coefficient": 0.01},
)  # fmt: skip


def _split(pairs: list[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs to train on and those to keep; all pairs of a prompt fall on one side."""
    prompts = sorted({_prompt(pair) for pair in pairs})
    random.Random(f"{seed}/reward").shuffle(prompts)
    kept = set(prompts[: round(share * len(prompts))])
    return [p for p in pairs if _prompt(p) not in kept], [p for p in pairs if _prompt(p) in kept]


def _prompt(pair: Pair) -> str:
    return json.dumps(pair.row["prompt"])


def _take(context: StageContext, tokenizer: Any, pairs: list[Pair]) -> Any:
    """Load a finished reward model. Raises ConfigError where it reads other tokens than the chain writes."""
    settings = cast(RewardSettings, context.settings)
    folder = fetch(taken_model(settings, context.config), context.stage)
    model = checkpoint.load_reward_model(folder, context.config.model)
    _require_same_tokens(context, folder, pairs)
    model.config.pad_token_id = tokenizer.pad_token_id  # batches are padded with the chain's
    return model


def _require_same_tokens(context: StageContext, folder: Path, pairs: list[Pair]) -> None:
    """Compare vocabularies, and what the two chat templates make of a few conversations."""
    try:
        contracts.check_reward_model("given", folder, context.parent_artifact.path)
    except ContractError as error:
        raise ConfigError(f"{context.stage}.path: {error}") from error
    own = checkpoint.load_tokenizer(folder, context.config.model)
    for pair in pairs[:NUM_COMPARED]:
        if tokenise_pair(pair.row, own).chosen_ids != pair.chosen_ids:
            raise ConfigError(
                f"{context.stage}.path: the reward model has another chat template than the chain, so it would read "
                "conversations in a form that it was not trained on. Take one that was trained with the same template."
            )


def _ranking(model: Any, pairs: list[Pair], tokenizer: Any) -> dict[str, Any]:
    chosen, rejected = (
        rewards_of(model, [getattr(pair, f"{side}_ids") for pair in pairs], tokenizer.pad_token_id)
        for side in ("chosen", "rejected")
    )
    return ranking_facts(chosen, rejected, [len(pair.chosen_ids) - len(pair.rejected_ids) for pair in pairs])
