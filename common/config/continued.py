"""What the stages before have read of the documents of a stage that goes on in the data behind them (`continue_data`).

Usage: `behind = behind_of(node, nodes, stages)`; `{"cpt": (409600,), "replay": (45511,)}` are tokens by role.

Documents come in one order for each role, which the seed decides and no budget does. A stage reads them until its
budget of tokens is full, so what it has read is known from settings alone. How documents are passed over is
`common.training.rows.parts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.config.base import StageSettings
from common.config.kinds import kind_of
from common.config.methods import Ancestor, RowsMethod, chosen
from common.config.node import Node
from common.config.stages import TrainingSettings, WithMethods

LEAVE = "Set continue_data=false."


def continues(settings: StageSettings) -> bool:
    """Whether a stage goes on in the data behind the stage before it."""
    return isinstance(settings, WithMethods) and settings.continue_data


def behind_of(
    node: Node, nodes: Sequence[Node], stages: Mapping[str, StageSettings]
) -> dict[str, tuple[int, ...]]:  # fmt: skip
    """Return, for each role of a stage, the budgets in tokens that the stages before it have read, the first one first.

    A stage that goes on behind another one that does so too is behind both. Roles that nobody has read are left out.
    """
    found: dict[str, tuple[int, ...]] = {}
    for one in reversed(ahead_of(node, nodes, stages)):
        for role, budget in budgets_of(one, stages[one.name]).items():
            found[role] = (*found.get(role, ()), budget)
    return {role: found[role] for role in budgets_of(node, stages[node.name]) if role in found}


def ahead_of(node: Node, nodes: Sequence[Node], stages: Mapping[str, StageSettings]) -> list[Node]:
    """Return the stages that a stage goes on behind, the nearest first; none where it begins at the start."""
    by_name = {one.name: one for one in nodes}
    found, here = list[Node](), node
    while continues(stages[here.name]) and here.parent is not None:
        here = by_name[here.parent]
        found.append(here)
    return found


def chained(nodes: Sequence[Node], stages: Mapping[str, StageSettings]) -> set[str]:
    """Return the stages that need a budget in tokens: those that go on behind others, and these."""
    found = set[str]()
    for node in nodes:
        if ahead := ahead_of(node, nodes, stages):
            found |= {node.name, *(one.name for one in ahead)}
    return found


def budgets_of(node: Node, settings: StageSettings) -> dict[str, int]:
    """Return the tokens that a stage reads of each of its roles; nothing where no budget says so."""
    if not isinstance(settings, TrainingSettings) or settings.tokens is None:
        return {}
    share = settings.replay
    if share == 1:
        return {"replay": settings.tokens}
    own = {kind_of(node.kind).roles[0]: round(settings.tokens * (1 - share))}
    steps = round(settings.tokens / settings.batch_tokens)
    return own | ({"replay": round(steps * settings.batch_tokens * share)} if share else {})


def continue_problem(node: Node, settings: WithMethods, before: Sequence[Ancestor]) -> str:
    """Say why a stage cannot go on behind what the stage before it has read, or nothing.

    `before` are the stages before it, the nearest first.
    """
    if not before:
        return f"{node.name} begins the chain. {LEAVE}"
    parent, name = before[0], before[0].node.name
    if parent.taken:
        return f"{name}, the stage before it, takes a finished checkpoint, and what that has read is not known. {LEAVE}"
    if not isinstance(parent.settings, WithMethods):
        return f"{name}, the stage before it, is of kind {parent.node.kind}, which reads no such rows. {LEAVE}"
    if parent.node.domain != node.domain:
        return f"{name}, the stage before it, reads the data of {parent.node.domain}, another domain. {LEAVE}"
    role, roles = _role_of(node, settings), _roles_of(parent.node, parent.settings)
    if role not in roles:
        return f"{name}, the stage before it, reads {' and '.join(roles)}, and {node.name} reads {role}. {LEAVE}"
    if parent.settings.tokens is None:
        return (
            f"{name}, the stage before it, reads all of its rows (epochs), and leaves none to go on with. Set a budget "
            f"in {name}.tokens, or continue_data=false."
        )
    if settings.tokens is None:
        return f"{node.name} has epochs, and goes on for a budget of tokens. Set {node.name}.tokens."
    if problem := _problem_of_the_first(node, settings, before):
        return problem
    return next(_other_ways(node, settings, parent), "")


def _problem_of_the_first(node: Node, settings: WithMethods, before: Sequence[Ancestor]) -> str:
    """Say which stage has read the same documents, though the first of the chain begins at the start, or nothing."""
    place = next(number for number, one in enumerate(before) if not continues(one.settings))
    first, role = before[place].node.name, _role_of(node, settings)
    for one in before[place + 1 :]:
        if one.taken or not isinstance(one.settings, WithMethods) or one.node.domain != node.domain:
            continue
        if role == _role_of(one.node, one.settings):
            return (
                f"{first} begins at the start of {role}, which {one.node.name} has read before it, so that "
                f"{node.name} would read that again. Set {first}.continue_data=true too, or {node.name}'s to false."
            )
    return ""


def _other_ways(node: Node, settings: WithMethods, parent: Ancestor) -> Iterator[str]:
    """Yield why two stages do not read one and the same order of documents."""
    assert isinstance(parent.settings, WithMethods), "it has been looked at"
    name = parent.node.name
    for one, own in ((parent.node, parent.settings), (node, settings)):
        if one.sampled:
            yield f"{one.name} reads rows that another stage has made, and not those of the data. {LEAVE}"
        if way := _own_way(own):
            yield (
                f"{one.name}.{way} does not read documents in their one order up to a budget. Leave that out, or set "
                "continue_data=false."
            )
    changes, others = _changes(parent.settings), _changes(settings)
    if differing := sorted(key for key in {*changes, *others} if changes.get(key) != others.get(key)):
        yield (
            f"methods.{differing[0]} changes documents, and so their tokens, and is not the same in {name} and "
            f"{node.name}. Set it alike in both."
        )
    if parent.settings.assistant_only != settings.assistant_only:
        yield f"only one of {name} and {node.name} learns from answers alone. Set train.assistant_only_loss alike."


def _role_of(node: Node, settings: TrainingSettings) -> str:
    return "replay" if settings.replay == 1 else kind_of(node.kind).roles[0]


def _roles_of(node: Node, settings: TrainingSettings) -> list[str]:
    role = _role_of(node, settings)
    return [role, "replay"] if settings.replay and role != "replay" else [role]


def _own_way(settings: WithMethods) -> str:
    """Return the setting by which a stage chooses or orders documents in a way of its own, or nothing."""
    if settings.packing == "trl":
        return "packing=trl"
    if settings.mixture.asks:
        return "mixture"
    if settings.replay and getattr(settings, "replay_from", "role") == "lineage":
        return "replay_from=lineage"
    found = (method.name for method, own in _of_rows(settings) if method.sorted_by(own) is not None)
    return next((f"methods.{name}" for name in found), "")


def _changes(settings: WithMethods) -> dict[str, Any]:
    """Return the methods that change a document, or what of it is learned, with their settings."""
    return {
        method.name: own.model_dump(mode="json")
        for method, own in _of_rows(settings)
        if method.rewrite is not None or method.mark is not None
    }


def _of_rows(settings: WithMethods) -> Iterator[tuple[RowsMethod, Any]]:
    for method, own in chosen(settings):
        if isinstance(method, RowsMethod):
            yield method, own
