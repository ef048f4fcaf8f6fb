"""What the settings of a run must fit: the processes that share a stage, the model's context, its licence.

Usage: `check_preconditions(resolved)`, from `common.engine.plan`, before anything is spent. All of it follows from
settings and facts alone; what the machine has is `common.engine.preflight.hardware`.
"""

from __future__ import annotations

import importlib.util

from common.config.base import StageSettings
from common.config.batches import SHARDED, batch_of, require_shareable, unshardable
from common.config.pipeline import Node
from common.config.resolve import Resolved
from common.config.schema import Config, RunSettings
from common.config.stages import (
    AnsweringSettings,
    CardSettings,
    LearningSettings,
    PreferenceSettings,
    RewardedSettings,
    TrainingSettings,
)
from common.cost.hardware import hardware_of
from common.engine.preflight.backends import check_device
from common.errors import ConfigError
from common.models.facts import context_of
from common.models.source import check_local_facts
from common.stage import SHARED_KINDS

# Licences that let what is made from a checkpoint be published under another one.
PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "unlicense", "cc-by-4.0")


def check_preconditions(resolved: Resolved) -> None:
    """Refuse settings that cannot work together. Raises ConfigError for the first."""
    config = resolved.config
    given = config.model.path is not None
    device = hardware_of(config).device
    _check_processes(config.run, device)
    check_device(config, [node.name for node in resolved.nodes], device)
    check_local_facts(config.model)
    _check_template(config)
    shared = [node for node in resolved.nodes if node.kind in SHARED_KINDS and not (node.kind == "base" and given)]
    if config.run.processes > 1:
        for node in shared:
            _check_shards(node, config.stages[node.name], config.run)
        batches = [batch for node in shared if (batch := batch_of(node.name, config.stages[node.name])) is not None]
        least = 2 if config.run.parallelism in SHARDED else 1
        require_shareable(batches, config.run.processes, config.run.machines, least)
    elif config.run.parallelism in SHARDED and shared and resolved.layers:  # one stage of a frozen plan may be run so
        raise ConfigError(
            f"run.parallelism={config.run.parallelism}, but one process has nobody to share with. Set run.processes to "
            "the number of GPUs, or run.parallelism=ddp."
        )
    for node in resolved.nodes:
        settings = config.stages[node.name]
        if node.kind == "base" and given:
            continue  # nothing trains there
        _check_context(node, settings, config)
        if isinstance(settings, CardSettings):
            _check_licence(settings, config)


def check_sharding(resolved: Resolved) -> None:
    """Refuse FSDP2 where a run is planned for a CPU, which accelerate has none for. Raises ConfigError.

    A single stage finds out by itself what accelerate does (`common.training.distributed.parallel`).
    """
    run = resolved.config.run
    if run.parallelism == "fsdp2" and run.processes > 1 and hardware_of(resolved.config).device == "cpu":
        raise ConfigError(
            "run.parallelism=fsdp2: accelerate has no FSDP on a CPU, and this run is for one. Use run.parallelism=ddp, "
            "or a machine with a GPU for each process (run.hardware=<name> to plan for one)."
        )


def _check_processes(run: RunSettings, device: str) -> None:
    if run.processes % run.machines:
        below = run.processes // run.machines * run.machines
        near = " or ".join(str(number) for number in (below, below + run.machines) if number)
        raise ConfigError(
            f"run.processes={run.processes} counts those of all machines, and cannot be shared alike by "
            f"run.machines={run.machines}. Set run.processes={near}."
        )
    if run.parallelism == "zero3" and run.processes > 1 and importlib.util.find_spec("deepspeed") is None:
        instead = "fsdp2, which shards the same and needs nothing more" if device == "cuda" else "ddp on a CPU"
        raise ConfigError(
            "run.parallelism=zero3 needs the package deepspeed, which is not installed here. Install it, or use "
            f"run.parallelism={instead}."
        )


def _check_shards(node: Node, settings: StageSettings, run: RunSettings) -> None:
    """Check that what processes would shard of a stage can be."""
    found = unshardable(settings, run) if isinstance(settings, LearningSettings) else ""
    if found == "peft=qlora":
        raise ConfigError(
            f"{node.name}.{found} with run.parallelism={run.parallelism}: quantised weights are not sharded here. "
            "Use run.parallelism=ddp, as a quantised model fits each GPU, or peft=lora."
        )
    if found:
        raise ConfigError(
            f"{node.name}.{found} with run.parallelism={run.parallelism}: the optimizers of bitsandbytes cannot work "
            f"on shards. Use {node.name}.train.optim=adamw_torch_fused, or run.parallelism=ddp."
        )
    if run.parallelism in SHARDED and isinstance(settings, RewardedSettings):
        raise ConfigError(
            f"{node.name} cannot be sharded (run.parallelism={run.parallelism}), as answers are generated by the whole "
            f"model in each process. Use run.parallelism=ddp, with {node.name}.peft=lora where memory is short."
        )


def _check_context(node: Node, settings: StageSettings, config: Config) -> None:
    """Check that the model can read a stage's longest rows."""
    context = context_of(config.model)
    if context is None:
        return
    longest = {}
    if isinstance(settings, TrainingSettings | PreferenceSettings):
        longest[f"{node.name}.sequence_length={settings.sequence_length}"] = settings.sequence_length
    if isinstance(settings, AnsweringSettings):
        keys = f"{node.name}.prompt_tokens={settings.prompt_tokens} and answer_tokens={settings.answer_tokens}"
        longest[keys] = settings.prompt_tokens + settings.answer_tokens
    for keys, length in longest.items():
        if length > context:
            raise ConfigError(
                f"{keys} {'make rows' if ' and ' in keys else 'is'} longer than the model's context of {context} "
                "tokens (max_position_embeddings); lower it."
            )


def _check_template(config: Config) -> None:
    facts = config.model.facts
    if facts is not None and facts.chat_template == "none" and config.model.chat_template == "own":
        raise ConfigError(
            f"{config.model.path} has no chat template (model.facts.chat_template), so conversations cannot be trained "
            "on; set model.chat_template=chatml."
        )


def _check_licence(settings: CardSettings, config: Config) -> None:
    """Check that a card does not give away what the base's licence keeps."""
    facts = config.model.facts
    if facts is not None and facts.licence not in PERMISSIVE and settings.licence != facts.licence:
        raise ConfigError(
            f"card.licence={settings.licence}, but {config.model.path} is under {facts.licence} (model.facts.licence), "
            f"which holds for what is made from it too; set card.licence={facts.licence}."
        )
