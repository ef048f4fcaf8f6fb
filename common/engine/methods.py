"""What a plan says of the methods that are on, and whether they fit the steps and the model that it knows.

Usage: `check_methods(resolved, outlook)`; `for line in method_lines(node, config, outlook): print(line)`.

Which methods go together is settled when layers are merged (`common.config.method_rules`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from common.config.kinds import kind_of
from common.config.methods import LossMethod, OptimizerMethod, chosen, method_of
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.schema import Config
from common.config.stages import WithMethods
from common.cost.budget import budget_of
from common.cost.disk import kept_of_teacher, state_bytes
from common.cost.hardware import GIB
from common.cost.memory import Setting
from common.cost.outlook import Outlook
from common.cost.shapes import DENSE
from common.errors import ConfigError
from common.models.planned import config_after
from common.store.artifacts import Store, fingerprint_of
from common.training.loop.carried import OPTIMIZER, state_recipe
from common.training.methods.applied import check_experts, check_steps
from common.training.methods.top_k import check_top_k

SMALLEST = 0.005  # share of a step's time that is worth a word


def check_methods(resolved: Resolved, outlook: Outlook) -> None:
    """Check methods against the steps and the model of their stages, where these are known. Raises ConfigError."""
    for node in resolved.own:
        settings = resolved.config.stages[node.name]
        if not isinstance(settings, WithMethods):
            continue
        rules = [name for name in settings.methods if isinstance(method_of(name), OptimizerMethod)]
        if resolved.config.run.parallelism == "zero3" and (settings.optimizer == "carry" or rules):
            key = f"methods.{rules[0]}" if rules else "optimizer=carry"
            raise ConfigError(
                f"{node.name}.{key} with run.parallelism=zero3: DeepSpeed keeps the state of weights and optimizer to "
                "itself. Use run.parallelism=fsdp2, which shards the same."
            )
        if not settings.methods:
            continue
        assert outlook.sizes is not None, "a plan knows its corpus"
        tokens = settings.tokens or budget_of(node, settings, outlook.sizes).tokens
        if tokens is not None:
            check_steps(node.name, settings, max(1, round(tokens / settings.batch_tokens)))
        if node.name in outlook.settings:
            check_top_k(node.name, settings, outlook.settings[node.name].shape.vocabulary)
        if _evens_experts(config_after(resolved, node.name), settings):
            check_experts(node.name, settings)


def _evens_experts(config: Mapping[str, Any], settings: WithMethods) -> bool:
    """Whether TRL adds the loss that evens the load of a model's experts, as far as its config.json says."""
    sparse = config.get("model_type") in DENSE or (
        "output_router_logits" in config and config.get("is_moe") is not False
    )
    given = settings.train.get("router_aux_loss_coef")
    return sparse and (config.get("router_aux_loss_coef", 0.001) if given is None else given) != 0


def carriers(name: str, resolved: Resolved) -> tuple[str, ...]:
    """Return the stages that go on with the optimizer state of a stage."""
    stages = resolved.config.stages
    return tuple(
        node.name
        for node in resolved.nodes
        if node.parent == name and getattr(stages[node.name], "optimizer", "fresh") == "carry"
    )


def lost_states(resolved: Resolved, there: Mapping[str, str | None], store: Store) -> set[str]:
    """Return the stages that are there without the optimizer state that a stage to be made goes on with.

    `there` are the results that are there: stage -> fingerprint.
    """
    return {
        name
        for name, fingerprint in there.items()
        if any(later not in there for later in carriers(name, resolved))
        and store.get(OPTIMIZER, fingerprint_of(state_recipe(str(fingerprint)))) is None
    }


def carry_lines(node: Node, resolved: Resolved, outlook: Outlook) -> Iterator[str]:
    """Yield a line for a stage whose optimizer state is kept beside its result."""
    later, setting = carriers(node.name, resolved), outlook.settings.get(node.name)
    if later:
        size = "" if setting is None or setting.work is None else f" ({state_bytes(setting) / GIB:.2f} GiB)"
        yield f"{node.name}: the state of its optimizer is kept beside its result{size}, for {', '.join(later)}."


def method_lines(node: Node, config: Config, outlook: Outlook) -> Iterator[str]:
    """Yield a line for each method of a stage: what it does, where it is from, what it adds."""
    if not kind_of(node.kind).makes_model:
        return
    for method, own in chosen(config.stages[node.name]):
        added = outlook.added(node.name, method.name)
        cost = "" if added is None else f" Adds {added[0] / GIB:.2f} GiB and {max(0.0, added[1]):.0%} of a step's time."
        if added is not None and added[1] < -SMALLEST:
            cost = f" Steps take {-added[1]:.0%} less time on average."
        if isinstance(method, LossMethod) and method.keeps(own):
            cost += _kept(outlook.settings.get(node.name))
        values = ", ".join(f"{name}={value}" for name, value in own.model_dump(mode="json").items())
        facts = "; ".join(filter(None, [values, method.paper]))
        yield f"{node.name}, {method.name}: {method.phrase} ({facts}).{cost}"


def _kept(setting: Setting | None) -> str:
    """Say what a teacher reads before the first step, and what it leaves, where both are known."""
    reads = " The stage before reads each row once, before the first step"
    if setting is None or not setting.kept_tokens:
        return f"{reads}."
    size = f"{kept_of_teacher(setting) / GIB:.2f} GiB"
    return f"{reads} (at most {setting.kept_tokens:,.0f} tokens), and leaves {size} on disk until the stage is done."
