"""Whether the settings of a run can work together: processes, the model's context, and each stage's own check.

Usage: `check_settings(resolved)`, from `common.engine.plan`, before anything is spent. All of it follows from settings
and facts alone. What a kind alone knows is the `check` of its `Kind`; what the machine has is
`common.engine.preflight.hardware`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from common.config.answering import DrawingSettings
from common.config.base import StageSettings
from common.config.batches import SHARDED, batch_of, require_shareable, unshardable
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.numbers import multiples_around
from common.config.resolve import Resolved
from common.config.schema import RunSettings
from common.config.stage_sections import label_of
from common.config.stages import TrainingSettings
from common.config.vocabulary import tokenizer_stage
from common.cost.hardware import hardware_of
from common.engine.preflight.backends import check_device
from common.engine.preflight.domain_code import check_code
from common.errors import ConfigError
from common.models.planned import config_after, context_after
from common.models.rope import FAMILIES
from common.models.source import check_local
from common.rewards.mix import check_rewards, check_verifier
from common.rewards.own import FILE, verifiers_for
from common.rewards.verifiers import VERIFIERS
from common.training.options import steps_for


def check_settings(resolved: Resolved) -> None:
    """Refuse settings that cannot work together. Raises ConfigError for the first."""
    config = resolved.config
    device = hardware_of(config).device
    _check_processes(config.run, device)
    _check_trackers(resolved)
    check_device(config, [node.name for node in resolved.own], device)
    check_local(config.model)
    training = [node for node in resolved.own if not (kind_of(node.kind).starts and config.model.path is not None)]
    _check_sharing([node for node in training if kind_of(node.kind).shareable], resolved)
    for node in training:
        _check_context(node.name, config.stages[node.name], resolved)
        if isinstance(settings := config.stages[node.name], TrainingSettings):
            steps_for(settings, 1, node.name)  # raises for a budget that makes no step, whatever the rows are
    check_code(resolved)
    # Without consent, code of a domain from elsewhere is not read; then no stage uses it, or check_code had raised.
    verifiers, verify = verifiers_for(resolved), config.verify
    own = resolved.shipped or verifiers is not VERIFIERS or not (resolved.domain_folder / FILE).is_file()
    if rewards := {name: given for name, given in verify.rewards.items() if own or name in verifiers}:
        check_rewards(rewards, "verify.rewards", verifiers=verifiers, origin=resolved.origin_of)
    if own or verify.check in verifiers:
        check_verifier(verify.check, "verify.check", verifiers)
    _check_tokenizers(resolved.nodes)
    for node in resolved.own:
        if check := kind_of(node.kind).check:
            check(node, config.stages[node.name], resolved)


def _check_tokenizers(nodes: Sequence[Node]) -> None:
    """Check that models which a stage reads together have one tokenizer. Raises ConfigError naming two that differ."""
    kinds = {node.name: kind_of(node.kind) for node in nodes}
    for node in nodes:
        if not kinds[node.name].makes_model and kinds[node.name].makes != "sample":
            continue
        first, *others = [name for name in node.inputs if kinds[name].makes_model] or [node.name]
        for other in others:
            here, there = (tokenizer_stage(name, nodes) for name in (first, other))
            if here != there:
                raise ConfigError(
                    f"{node.name}: '{first}' and '{other}' have different tokenizers, those of the stages {here} and "
                    f"{there}, so one id means two tokens. Name stages that continue from the same one of these two."
                )


def check_sharding(resolved: Resolved) -> None:
    """Refuse FSDP2 where a run is planned for a CPU, which accelerate has none for. Raises ConfigError.

    A single stage finds out by itself what accelerate does (`common.training.distributed.parallel`).
    """
    run = resolved.config.run
    if run.parallelism == "fsdp2" and run.processes > 1 and hardware_of(resolved.config).device == "cpu":
        raise ConfigError(
            "run.parallelism=fsdp2: accelerate has no FSDP on a CPU, and this run is planned for one. Use "
            "run.parallelism=ddp, or a machine with a GPU for each process (run.hardware=<name> to plan for one)."
        )


def _check_processes(run: RunSettings, device: str) -> None:
    if run.processes % run.machines:
        raise ConfigError(
            f"run.processes={run.processes} is the number over all machines, and does not divide by "
            f"run.machines={run.machines}. Set run.processes={multiples_around(run.processes, run.machines)}."
        )
    if run.parallelism == "zero3" and run.processes > 1 and importlib.util.find_spec("deepspeed") is None:
        instead = "fsdp2, which shards the same and needs nothing more" if device == "cuda" else "ddp on a CPU"
        raise ConfigError(
            "run.parallelism=zero3 needs the package deepspeed, which is not installed here. Install it, or use "
            f"run.parallelism={instead}."
        )


def _check_trackers(resolved: Resolved) -> None:
    """Check that the trackers that are named are installed: who names one wants its curves. Raises ConfigError."""
    for name in resolved.config.run.report_to:
        if importlib.util.find_spec(name) is None:
            origin = label_of("run.report_to", resolved.origins)
            where = f"run.report_to={name} ({origin})" if origin else f"run.report_to={name}"
            raise ConfigError(
                f"{where}: the package {name} is not installed here. Run: pip install 'domain-recipes[trackers]', or "
                "leave it out."
            )


def _check_sharing(nodes: Sequence[Node], resolved: Resolved) -> None:
    """Check that processes can share the stages of a run, and that there is more than one to shard a model."""
    run, stages = resolved.config.run, resolved.config.stages
    sharded = run.parallelism in SHARDED
    if run.processes == 1:
        if sharded and nodes and resolved.layers:  # a frozen plan has no layers: one stage of it may be run so
            raise ConfigError(
                f"run.parallelism={run.parallelism} shards a model, but run.processes is 1. Set run.processes to the "
                "number of GPUs, or run.parallelism=ddp."
            )
        return
    for node in nodes:
        _check_shards(node, stages[node.name], run)
    batches = [batch for node in nodes if (batch := batch_of(node.name, stages[node.name])) is not None]
    require_shareable(batches, run.processes, run.machines, 2 if sharded else 1)


def _check_shards(node: Node, settings: StageSettings, run: RunSettings) -> None:
    """Check that a stage can be sharded, where processes would."""
    found = unshardable(settings, run)
    if found == "peft=qlora":
        raise ConfigError(
            f"{node.name}.{found} with run.parallelism={run.parallelism}: quantised weights are not sharded here. "
            "Use run.parallelism=ddp, as a quantised model fits each GPU, or peft=lora."
        )
    if found.startswith("methods."):
        raise ConfigError(
            f"{node.name}.{found} with run.parallelism={run.parallelism}: it needs whole weights. Use "
            "run.parallelism=ddp, or leave it out."
        )
    if found:
        raise ConfigError(
            f"{node.name}.{found} with run.parallelism={run.parallelism}: bitsandbytes has no "
            f"optimizer for shards. Use {node.name}.train.optim=adamw_torch_fused, or run.parallelism=ddp."
        )
    if run.parallelism in SHARDED and kind_of(node.kind).online:
        raise ConfigError(
            f"{node.name} cannot be sharded (run.parallelism={run.parallelism}): each process generates answers with "
            f"the whole model. Use run.parallelism=ddp, with {node.name}.peft=lora where memory is short."
        )


def _check_context(name: str, settings: StageSettings, resolved: Resolved) -> None:
    """Check that the model can read a stage's longest rows."""
    context, family = context_after(resolved, name), config_after(resolved, name).get("model_type")
    if context is None:
        return
    row = getattr(settings, "sequence_length", 0)
    if row > context:
        layer = label_of(f"{name}.sequence_length", resolved.origins) or "default"
        longer = ", or let a cpt stage give it a longer one (rope_theta)" if family in FAMILIES else ""
        raise ConfigError(
            f"{name}.sequence_length={row} ({layer}) is longer than the model's context of {context} tokens "
            f"(max_position_embeddings); set {name}.sequence_length={context} or less{longer}."
        )
    if not isinstance(settings, DrawingSettings):
        return
    if settings.prompt_tokens + settings.answer_tokens > context:
        raise ConfigError(
            f"{name}.prompt_tokens={settings.prompt_tokens} and answer_tokens={settings.answer_tokens} make rows "
            f"longer than the model's context of {context} tokens (max_position_embeddings); lower one of them."
        )
