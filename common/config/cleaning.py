"""Settings of the stages that clean data, and their place in a pipeline: one for each role whose rows train a stage.

Usage: `nodes = with_cleaning(nodes, ("cpt", "sft"))`; the stage `data-cpt` then makes what `cpt` reads.

Which blocks there are is `common.config.blocks`. A data manifest lists them below `blocks:`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from common.config.base import OfData, StageSettings
from common.config.blocks import BlockList, block_of, chosen
from common.config.kinds import kind_of
from common.config.node import Node

KIND = "clean"
PREFIX = "data-"  # of the names of such stages; the role follows
ROLES = ("pretrain", "cpt", "replay", "sft", "preference", "prompts")  # in the order in which a chain reads them
CHARACTERS_OF_A_TOKEN = 8  # more than a token of any usual text has, so that a budget is met


class DataSettings(StageSettings):
    """How the rows of a role are cleaned."""

    role: str = Field("", description="role whose rows it cleans; the stage's name says it")
    blocks: OfData[BlockList] = Field((), description="blocks in their order, each a name or a name with settings")
    rejects: OfData[int] = Field(
        20, ge=0, le=10_000, description="rejected rows that are kept to look at, for each block and reason"
    )
    hub_characters: int | None = Field(
        None, gt=0, description="most characters read of each source of the Hub; none: what the stages' budgets need"
    )


def uses_seed(settings: StageSettings) -> bool:
    """Whether a stage cleans by a block that the run's seed decides on."""
    return isinstance(settings, DataSettings) and any(block_of(name).seeded for name, _ in chosen(settings.blocks))


def benchmarks_of(stages: Mapping[str, StageSettings]) -> list[str]:
    """Return the benchmarks that the exams of a run ask, each once; cleaned rows must not repeat these either."""
    return list(dict.fromkeys(task for settings in stages.values() for task in getattr(settings, "tasks", ())))


def with_cleaning(nodes: Sequence[Node], roles: Collection[str]) -> list[Node]:
    """Return the stages of a pipeline with those that clean some roles before them, where a stage reads them."""
    read = {role for node in nodes for role in _roles(node)}
    cleaned = [role for role in ROLES if role in read and role in roles]
    names = [PREFIX + role for role in cleaned]
    found = [
        Node(name, KIND, None, tuple(names[:place]), KIND, fixed={"role": role})
        for place, (name, role) in enumerate(zip(names, cleaned, strict=True))
    ]
    for node in nodes:
        reads = tuple(PREFIX + role for role in cleaned if role in _roles(node))
        everything = tuple(names) if node.kind == "card" else ()
        found.append(replace(node, inputs=(*reads, *everything, *node.inputs)) if reads or everything else node)
    return found


def _roles(node: Node) -> tuple[str, ...]:
    """Return the roles of training rows that a stage may read. Sampled answers take the place of the first."""
    kind = kind_of(node.kind)
    read = (*kind.roles, *kind.measures)
    roles = tuple(role for role in read if role in ROLES) if kind.makes not in ("report", "rows") else ()
    return roles[1:] if node.sampled else roles


def from_lineage(settings: StageSettings) -> bool:
    """Whether a stage's replay is drawn from what the chain has read before, and not from the role replay."""
    return getattr(settings, "replay_from", "role") == "lineage"


def needed_inputs(node: Node, settings: StageSettings) -> tuple[str, ...]:
    """Return the inputs that decide a stage's result: not the cleaned rows that its settings leave unread."""
    if isinstance(settings, DataSettings):
        earlier = {PREFIX + role for name, given in chosen(settings.blocks) for role in block_of(name).roles(given)}
        return tuple(name for name in node.inputs if name in earlier)
    replay = getattr(settings, "replay", None)
    unread = {PREFIX + "replay"} if replay == 0 or from_lineage(settings) else set[str]()
    if not settings.measuring:
        unread |= {PREFIX + role for role in kind_of(node.kind).measures}
    if replay == 1:
        unread = {PREFIX + role for role in ROLES if role != "replay"}
    return tuple(name for name in node.inputs if name not in unread)


def hub_characters(
    nodes: Sequence[Node], stages: Mapping[str, StageSettings], far: Collection[str],
    behind: Callable[[Node], Mapping[str, Sequence[int]]],
) -> dict[str, int]:  # fmt: skip
    """Return the most characters that cleaning reads of each source of the Hub, by stage, where nobody says it.

    It follows from the tokens that stages train on; one that trains in epochs needs all rows. `far` are the roles that
    have such sources. `behind` says, for each role of a stage, the tokens that it passes over
    (`common.config.continued`, which the code that makes rows need not know).
    """
    found = {}
    for node in nodes:
        settings = stages[node.name]
        if not isinstance(settings, DataSettings) or settings.role not in far or settings.hub_characters is not None:
            continue
        needs = [
            _tokens_of(stages[other.name], settings.role, sum(behind(other).get(settings.role, ())))
            for other in nodes
            if node.name in needed_inputs(other, stages[other.name]) and other.kind not in (KIND, "card")
        ]
        if needs and None not in needs:
            found[node.name] = CHARACTERS_OF_A_TOKEN * max(tokens for tokens in needs if tokens is not None)
    return found


def _tokens_of(settings: StageSettings, role: str, behind: int) -> int | None:
    """Return how many tokens of a role a stage needs, with those that it passes over; None where all of them."""
    tokens, share = getattr(settings, "tokens", None), getattr(settings, "replay", 0.0)
    return None if tokens is None else round(tokens * (share if role == "replay" else 1)) + behind


def pruned(nodes: Sequence[Node], stages: Mapping[str, StageSettings], *, takes: bool) -> tuple[Node, ...]:
    """Return the stages without inputs that their settings leave unread, and without cleaning that nobody needs.

    `takes` says that the chain starts from a finished checkpoint, so that no rows of the role pretrain are read.
    """
    slim = {node.name: needed_inputs(node, stages[node.name]) for node in nodes}
    if takes:
        slim |= {node.name: () for node in nodes if kind_of(node.kind).starts}
    cleaning = {node.name for node in nodes if node.kind == KIND}
    used = {name for node in nodes if node.kind not in (KIND, "card") for name in slim[node.name]}
    for node in reversed(nodes):  # the rows of one role may be compared with those of an earlier one
        if node.name in cleaning & used:
            used.update(slim[node.name])
    gone = cleaning - used
    return tuple(
        replace(node, inputs=tuple(name for name in slim[node.name] if name not in gone))
        for node in nodes
        if node.name not in gone
    )


def cleaned_roles(inputs: Iterable[str]) -> tuple[str, ...]:
    """Return the roles whose rows a stage's inputs bring, by the names of these inputs."""
    return tuple(name.removeprefix(PREFIX) for name in inputs if name.startswith(PREFIX))


def roles_in(manifest: Any, *, hub: bool = False) -> list[str]:
    """Return the roles of the enabled sources of a raw manifest that stages may clean; with `hub` those on the Hub.

    What is wrong with the manifest is said when it is loaded.
    """
    sources = manifest.get("sources") if isinstance(manifest, Mapping) else None
    found = [
        source.get("role")
        for source in (sources if isinstance(sources, list) else ())
        if isinstance(source, Mapping) and source.get("enabled", True) and (source.get("hub") or not hub)
    ]
    return [role for role in ROLES if role in found]
