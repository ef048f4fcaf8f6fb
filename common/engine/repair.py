"""Notice that a result was changed before it is read, and say how to make it again.

Usage: `tell_damage(plan, console)` at the start; `require_inputs(plan, node)` and `require_unchanged(inputs, folder)`
before a stage reads them.

Which bytes count, and what is remembered of them, is `common.store.verify`.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.config.node import Node
from common.console import Console
from common.engine.plan import Plan, Step
from common.engine.staleness import DAMAGED
from common.errors import DataError, StoreError
from common.store.artifacts import Artifact
from common.store.runs import RunFolder, run_of
from common.store.verify import changed


def tell_damage(plan: Plan, console: Console) -> None:
    """Say which results are not what was committed: they are made again, and published versions stay as they are."""
    for step in plan.steps:
        again = "" if step.state == "cached" else "; it is made again"
        for reason in step.reasons:
            if reason.startswith(DAMAGED):
                console.line(f"  {step.node.name}: {reason}{again}", always=True)


def damage_of(step: Step, folder: RunFolder) -> str:
    """Return the message about a step whose result is damaged, with the command that repairs it; "" where it is not."""
    if step.state == "cached":
        return ""
    found = (reason.removeprefix(DAMAGED) for reason in step.reasons if reason.startswith(DAMAGED))
    return "".join(_damaged(step.node.name, problem, folder) for problem in found)


def require_inputs(plan: Plan, node: Node) -> None:
    """Check that the inputs of one stage are there. Raises DataError, or StoreError for one that is damaged."""
    steps = {step.node.name: step for step in plan.steps}
    for needed in node.inputs:
        if steps[needed].state == "cached":
            continue
        if message := damage_of(steps[needed], run_of(plan.resolved)):
            raise StoreError(message)
        raise DataError(f"Stage {node.name} needs {needed}, which is not made yet; run stage {needed} first.")


def require_unchanged(results: Mapping[str, Artifact], folder: RunFolder) -> None:
    """Check that results, by the names that the run gives their stages, are what was committed.

    Raises StoreError with the file and the command that repairs it.
    """
    for name, artifact in results.items():
        if problem := changed(artifact):
            raise StoreError(_damaged(name, f"{artifact.path.name}: {problem}", folder))


def _damaged(stage: str, problem: str, folder: RunFolder) -> str:
    return f"The result of stage {stage} is damaged. {problem}. Make it again with `{folder.rerun(stage)}`."
