"""What a plan says of the methods that are on, and whether their phases fit into the steps that it counts.

Usage: `check_methods(resolved, outlook)`; `for line in method_lines(node, config, outlook): print(line)`.

Which methods go together is settled when layers are merged (`common.config.method_rules`).
"""

from __future__ import annotations

from collections.abc import Iterator

from common.config.kinds import kind_of
from common.config.methods import chosen
from common.config.node import Node
from common.config.resolve import Resolved
from common.config.schema import Config
from common.config.stages import WithMethods
from common.cost.budget import budget_of
from common.cost.hardware import GIB
from common.cost.outlook import Outlook
from common.training.methods.applied import check_steps


def check_methods(resolved: Resolved, outlook: Outlook) -> None:
    """Check schedules against the steps of their stages, where these are known. Raises ConfigError."""
    for node in resolved.nodes:
        settings = resolved.config.stages[node.name]
        if not isinstance(settings, WithMethods) or not settings.methods:
            continue
        assert outlook.sizes is not None, "a plan knows its corpus"
        tokens = settings.tokens or budget_of(node, settings, outlook.sizes).tokens
        if tokens is not None:
            check_steps(node.name, settings, max(1, round(tokens / settings.batch_tokens)))


def method_lines(node: Node, config: Config, outlook: Outlook) -> Iterator[str]:
    """Yield a line for each method of a stage: what it does, where it is from, what it adds."""
    if not kind_of(node.kind).makes_model:
        return
    for method, own in chosen(config.stages[node.name]):
        added = outlook.added(node.name, method.name)
        cost = "" if added is None else f" Adds {added[0] / GIB:.2f} GiB and {max(0.0, added[1]):.0%} of a step's time."
        values = ", ".join(f"{name}={value}" for name, value in own.model_dump(mode="json").items())
        yield f"{node.name}, {method.name}: {method.phrase} ({values}; {method.paper}).{cost}"
