"""Supervised fine-tuning on conversations: only the assistant's words and its stop token are learned.

Usage: named by a pipeline as `sft: {kind: sft, from: cpt}`; a control arm is the same kind from another stage.

With a `sample` stage in `with`, the conversations are right answers of a checkpoint (rejection sampling) instead of the
corpus's. The chat template is the checkpoint's own; what is trained is what is served.
"""

from __future__ import annotations

from typing import Any, cast

from common.config.kinds import Kind
from common.config.stages import SftSettings, TrainingSettings
from common.errors import ConfigError
from common.models import contracts
from common.models.turns import require_trainable_template
from common.stage import StageContext, StageReport
from common.training.adapters import load_parent
from common.training.fit import check_and_save, fit, report
from common.training.freezing import check_train_only
from common.training.rows.rows import TrainingRows, build_rows


def run(context: StageContext) -> StageReport:
    """Return the parent, trained to answer."""
    model, tokenizer = load_parent(context)
    rows = conversations(context, tokenizer)
    trained = fit(context, model, tokenizer, rows)
    probe = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who are you?"}], add_generation_prompt=True, return_dict=False
    )
    measured = check_and_save(context, trained, tokenizer, probe=probe)
    return report(context, trained, measured, rows.counts, rows.read)


KIND = Kind(
    name="sft", settings=SftSettings, run=run, check=check_train_only, roles=("sft", "replay"), reads=("sample",),
    shareable=True,
    phrase="supervised fine-tuning on conversations", part="conversations",
)  # fmt: skip


def conversations(context: StageContext, tokenizer: Any) -> TrainingRows:
    """Return the stage's conversations as tokens; a round of expert iteration trains on them too.

    Raises ConfigError and ContractError where the chat template cannot be learned from them.
    """
    assistant_only = cast(TrainingSettings, context.settings).assistant_only
    if assistant_only:
        require_trainable_template(tokenizer)
    elif not tokenizer.chat_template:
        raise ConfigError(f"{context.stage}: the checkpoint has no chat template, so it cannot learn conversations.")
    rows = build_rows(context, tokenizer, role="sft", assistant_only=assistant_only)
    contracts.check_stop_is_learned([row.labels for row in rows.samples], tokenizer)
    return rows
