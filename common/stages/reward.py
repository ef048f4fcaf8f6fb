"""The reward model: one number for an answer, learned from pairs (Bradley and Terry 1952; Ouyang et al. 2022).

Usage: named by a pipeline as `reward: {kind: reward, from: sft}`; a later stage names it in `with:` and in its rewards,
`rewards: {quality: {model: reward, weight: 1.0}}`. `reward.path` takes a finished reward model instead.

It is the stage before with a head of one number in place of the vocabulary, trained by TRL's RewardTrainer on
-log sigmoid(r(chosen) - r(rejected)) (arXiv 2203.02155, equation 1). Pairs that never train say how well it ranks, and
whether it is as sure as it is right. It answers nothing and sits no exam.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, cast

from common.config import ModelSettings
from common.data.accounting import RowCount, check_limits
from common.errors import ConfigError, ContractError, DataError
from common.rewards.judge import rewards_of
from common.rewards.ranking import Ranking
from common.stage_settings import RewardSettings
from common.stages import StageContext, StageReport
from common.stages.base import fetch
from common.stages.preference import arguments_for, finish, loop_for
from common.training import checkpoint
from common.training.fit import Fitted, hand_on, lora_config
from common.training.preferences import Pair, read_pairs

# Rewards are kept around zero (Eisenstein et al. 2023, arXiv 2312.09244, equation 2); only differences are learned.
DEFAULTS = {"center_rewards_coefficient": 0.01}


def run(context: StageContext) -> StageReport:
    """Return a reward model, and how it ranks pairs that it has never seen."""
    settings = cast(RewardSettings, context.settings)
    tokenizer = checkpoint.load_tokenizer(context.parent_artifact.path, context.config.model)
    heldout, counts = read_pairs(context, tokenizer, "preference_heldout")
    if not heldout:
        raise DataError(
            f"Stage {context.stage}: there are no held-out pairs, so nothing would say how well it ranks. "
            "Set `heldout: 0.1` for a source of the role preference."
        )
    if settings.path is None:
        fitted, pairs, own = _fit(context, tokenizer)
        counts = own + counts
    else:
        fitted, pairs = Fitted(_take(context, settings.path), [], 0, 0.0, 0), []
    ranking = Ranking.of(*(_rewards(fitted.model, heldout, side, tokenizer) for side in ("chosen", "rejected")))
    lengths = [len(pair.chosen_ids) - len(pair.rejected_ids) for pair in heldout]
    measured = hand_on(
        context, fitted, tokenizer, probe=heldout[0].chosen_ids,
        parent_tokenizer=checkpoint.load_tokenizer(context.parent_artifact.path, context.config.model),
    )  # fmt: skip
    return StageReport(
        metrics={"steps": fitted.steps, "pairs": len(pairs), **ranking.facts(lengths), **measured},
        tokens=fitted.tokens,
        train_seconds=fitted.seconds,
        rows=[count.as_dict() for count in counts],
        sources=context.corpus.sources(),
    )


def _fit(context: StageContext, tokenizer: Any) -> tuple[Fitted, list[Pair], list[RowCount]]:
    """Run RewardTrainer on the parent with a new head."""
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from trl import RewardConfig

    disable_progress_bar()
    settings = cast(RewardSettings, context.settings)
    pairs, counts = read_pairs(context, tokenizer, "preference")
    check_limits(counts, settings.limits, context.stage)
    if not pairs:
        raise DataError(f"Stage {context.stage}: the role preference has no usable pair. Check its sources.")
    model = checkpoint.load_judge(context.parent_artifact.path, context.config.model, seed=context.config.seed)
    loop = loop_for(context, pairs)
    trainer = _trainer_class()(
        model=model,
        args=arguments_for(RewardConfig, context, loop, num_pairs=len(pairs), defaults=DEFAULTS),
        train_dataset=Dataset.from_list(
            [{"chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids} for pair in pairs]
        ),
        processing_class=tokenizer,
        peft_config=lora_config(settings, task="SEQ_CLS"),
    )
    return finish(trainer, loop), pairs, counts


@functools.cache
def _trainer_class() -> type[Any]:
    from trl import RewardTrainer

    class QuietRewardTrainer(RewardTrainer):  # type: ignore[misc] # TRL is untyped
        """RewardTrainer whose checkpoints hold no model card; ours is written once, for the whole chain."""

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            super(RewardTrainer, self)._save_checkpoint(model, trial)

    return QuietRewardTrainer


def _take(context: StageContext, path: str) -> Any:
    """Load a finished reward model. Raises ContractError where it reads other tokens than the chain."""
    settings = cast(RewardSettings, context.settings)
    folder = fetch(
        ModelSettings(path=path, revision=settings.revision, trust_remote_code=context.config.model.trust_remote_code)
    )
    model = checkpoint.load_judge(folder, context.config.model)
    _require_same_tokens(context, folder)
    model.config.pad_token_id = checkpoint.load_tokenizer(folder, context.config.model).pad_token_id
    return model


def _require_same_tokens(context: StageContext, folder: Path) -> None:
    from common.contracts import check_judge

    try:
        check_judge(str(cast(RewardSettings, context.settings).path), folder, context.parent_artifact.path)
    except ContractError as error:
        raise ConfigError(f"{context.stage}.path: {error}") from error


def _rewards(model: Any, pairs: list[Pair], side: str, tokenizer: Any) -> list[float]:
    return rewards_of(model, [getattr(pair, f"{side}_ids") for pair in pairs], tokenizer.pad_token_id)
