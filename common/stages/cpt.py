"""Continued pre-training: the domain's text, mixed with replay of what the model must not forget.

Usage: named by a pipeline as `cpt: {kind: cpt, from: base}`.

Every token is learned; documents of one row cannot see each other. The learning rate is re-warmed from zero, as
the base's own schedule has ended. Conversations among the replay rows are plain text here. With `rope_theta` the model
is made to read longer rows than before. With a `label` stage in `with`, its texts are read in place of the domain's.
"""

from __future__ import annotations

from typing import Any, cast

from common.config.kinds import Kind
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.stages import CptSettings
from common.models.planned import config_after
from common.models.rope import rope_of
from common.models.settings_files import read_config
from common.stage import StageContext, StageReport
from common.training.adapters import load_parent
from common.training.fit import check_and_save, fit, report, text_probe
from common.training.freezing import check_train_only
from common.training.rows.positions import share_from
from common.training.rows.rows import TrainingRows, build_rows


def run(context: StageContext) -> StageReport:
    """Return the parent, trained on the domain's text."""
    model, tokenizer = load_parent(context)
    rows = build_rows(context, tokenizer, role="cpt", assistant_only=False)
    longer = _longer(context, model, tokenizer, rows)
    trained = fit(context, model, tokenizer, rows)
    measured = check_and_save(context, trained, tokenizer, probe=text_probe(tokenizer))
    return report(context, trained, {**measured, **longer}, rows.counts, rows.read)


def _longer(context: StageContext, model: Any, tokenizer: Any, rows: TrainingRows) -> dict[str, Any]:
    """Let the tokenizer know a longer context; return what the card says of it, nothing where all stays."""
    settings = cast(CptSettings, context.settings)
    if settings.rope_theta is None:
        return {}
    folder = context.parent_artifact.path
    before = rope_of(read_config(folder))
    context_now = int(model.config.max_position_embeddings)
    if tokenizer.model_max_length < context_now:
        tokenizer.model_max_length = context_now
    facts = {"base_before": before.base, "base": settings.rope_theta}
    facts |= {"context_before": before.context, "context": context_now}
    if before.context is None or settings.packing != "isolated":
        return {"rope": facts}
    facts["beyond"] = share = share_from(rows.dataset, settings.sequence_length, before.context)
    if context_now > before.context:
        few = share < 0.01
        context.console.line(
            f"  {context.stage}: {share:.2%} of the positions that train are beyond the {before.context:,} tokens that "
            f"the model read before{'; the documents are too short to teach it more' if few else ''}",
            always=few,
        )
    return {"rope": facts}


def check(node: Node, settings: CptSettings, resolved: Resolved) -> None:
    """Check that layers to train alone are added before, and that RoPE can get its base. Raises ConfigError."""
    check_train_only(node, settings, resolved)
    if settings.rope_theta is not None:
        config_after(resolved, node.name)


KIND = Kind(
    name="cpt", settings=CptSettings, run=run, check=check, roles=("cpt", "replay"), reads=("labelled text",),
    shareable=True,
    phrase="continued pre-training on the domain's text", part="text",
)  # fmt: skip
