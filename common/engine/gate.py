"""Hold the exam of a stage against that of the base: what `gate.mode` does about a limit that is broken.

Usage: `for line in broken_limits(node, plan, artifacts, made): console.line(line)`.

What a limit is and when it is broken is `common.evaluation.gate`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from common.config.node import Node
from common.engine.plan import Plan
from common.errors import GateError
from common.store.artifacts import Artifact


def broken_limits(node: Node, plan: Plan, artifacts: Mapping[str, Artifact], made: Collection[str]) -> list[str]:
    """Return what to say of a stage that examined a checkpoint; nothing for any other.

    A warning is for the run that `made` one of the two exams, not again for every later one. Raises GateError where
    the settings stop the chain.
    """
    if node.kind != "evaluate":
        return []
    settings, pipeline = plan.part(node).resolved.config.gate, plan.resolved.pipeline
    examined = pipeline.stages[str(node.parent)]
    if examined.domain not in (None, node.domain or None):
        return []  # what the training of one domain costs another is on the card of a sequence
    alike = [n.name for n in plan.resolved.nodes if (n.kind, n.domain) == (node.kind, node.domain)]
    exams = {name: artifacts[name] for name in alike if name in artifacts}
    first = next(iter(exams))  # the first examined stage that is there
    is_control = node.parent in pipeline.controls
    shown_before = settings.mode == "warn" and not {node.name, first} & set(made)
    if settings.mode == "off" or is_control or first == node.name or shown_before:
        return []
    from common.evaluation.gate import check_artifacts

    lines = check_artifacts(settings, exams[node.name].path, exams[first].path, str(node.parent))
    if lines and settings.mode == "stop":
        raise GateError(f"The gate stops the chain: {lines[0]} Set gate.mode=warn to go on.")
    return lines
