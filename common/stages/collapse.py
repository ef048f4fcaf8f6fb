"""Collapse what `expand` by control_llm made: each layer and the copy beside it become one plain layer.

Usage: named by a pipeline as `collapse: {kind: collapse, from: sft}`, behind `expand` with `method: control_llm`.

The result is a plain checkpoint of transformers' own classes; nothing is trained. A card says what it cost where both
the stage before and this one are examined. What may stand between `expand` and this stage is checked here.
"""

from __future__ import annotations

from typing import cast

from common.config.batches import SHARDED
from common.config.growth import CollapseSettings
from common.config.kinds import Kind, kind_of
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.stages import ContinuedSettings
from common.errors import ConfigError
from common.models import checkpoint, contracts
from common.models.growth.collapsing import collapse, how_weights_meet, mean_weights
from common.models.growth.pair_configs import ADVICE, INTERPOLATION, collapsed_config
from common.models.growth.record import forget
from common.models.planned import config_after, is_paired_after
from common.stage import StageContext, StageReport
from common.training.fit import TrainResult, check_and_save, text_probe


def run(context: StageContext) -> StageReport:
    """Return the parent as a plain model. Raises ConfigError where no layer has a copy beside it."""
    settings = cast(CollapseSettings, context.settings)
    model, tokenizer = checkpoint.load(context.parent_artifact.path, context.config.model)
    probe = text_probe(tokenizer)
    logits_TV, before = contracts.probe_logits(model, probe), model.num_parameters()
    plain = collapse(model, settings.weights, context.stage)
    how, means = how_weights_meet(settings.weights, getattr(model.config, INTERPOLATION)), mean_weights(model)
    difference = contracts.relative_difference(contracts.probe_logits(plain, probe), logits_TV)
    facts = {
        "weights": how, "mean_w": means, "layers": int(plain.config.num_hidden_layers), "parameters_before": before,
        "parameters": plain.num_parameters(), "difference": difference,
    }  # fmt: skip
    context.console.line(
        f"  {context.stage}: {before:,} -> {facts['parameters']:,} parameters; logits differ by {difference:.1g} of "
        "their range"
    )
    check_and_save(context, TrainResult(plain), tokenizer, probe=probe)
    forget(context.out)
    return StageReport(metrics={"steps": 0, "collapse": facts})


def check(node: Node, settings: CollapseSettings, resolved: Resolved) -> None:
    """Check that there is something to collapse. Raises ConfigError."""
    assert node.parent is not None, "a stage of this kind continues from another"
    if not is_paired_after(resolved, node.parent):
        collapsed_config({}, node.name)
    config_after(resolved, node.name)


def check_until_collapsed(resolved: Resolved) -> None:
    """Check what goes on from models with copies beside their layers. Raises ConfigError."""
    for node in resolved.nodes:
        paired = next((name for name in node.inputs if is_paired_after(resolved, name)), None)
        if paired is not None and (problem := _problem(node, paired, resolved)):
            raise ConfigError(problem)


def _problem(node: Node, paired: str, resolved: Resolved) -> str:
    """Say why a stage cannot go on from a model with copies, or nothing."""
    run, settings, kind = resolved.config.run, resolved.config.stages[node.name], kind_of(node.kind)
    if node.kind == "publish":
        published = str(node.parent)
        if not is_paired_after(resolved, published):
            return ""
        return (
            f"publish: the layers of {published} have copies beside them (control_llm), which no other program loads. "
            f"{ADVICE} behind it, and let `publish` name that one."
        )
    if node.kind == "collapse" or kind.makes in ("report", "rows"):
        return ""
    if not isinstance(settings, ContinuedSettings) or node.kind not in ("cpt", "sft"):
        return (
            f"{node.name}: a stage of kind {node.kind} cannot go on from {paired}, whose layers have copies beside "
            f"them (control_llm); cpt, sft and collapse can. {ADVICE} between them."
        )
    if settings.train_only != "added":
        return (
            f"{node.name}.train_only: the layers of {paired} are frozen beside their copies (control_llm). Set "
            f"{node.name}.train_only=added and {node.name}.peft=full. {ADVICE} before a stage that trains all."
        )
    if run.parallelism in SHARDED and run.processes > 1:
        return (
            f"{node.name}: run.parallelism={run.parallelism} shards plain layers, and those of {paired} have copies "
            "beside them (control_llm). Use run.parallelism=ddp."
        )
    if run.compile != "none":
        return (
            f"{node.name}: run.compile={run.compile} needs layers that are alike, and some of {paired} have copies "
            "beside them (control_llm). Use run.compile=none."
        )
    return ""


KIND = Kind(
    name="collapse", settings=CollapseSettings, run=run, check=check,
    reshapes=lambda settings, config, stage: collapsed_config(config, stage), seconds=3.0,
    phrase="copies beside layers collapsed into plain layers",
)  # fmt: skip
