"""Open the rows that a run's configuration names: embedded knowledge, the domain's Hub manifest, or a user's.

Usage: `corpus = open_corpus(resolved)`.

A user's manifest without text to pretrain the tiny base on gets that of the embedded general world.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from common.config.cleaning import roles_in
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.pipeline import load_pipelines
from common.config.resolve import EMBEDDED, HUB, Resolved
from common.config.yaml import read_manifest
from common.data.corpus import Corpus
from common.errors import RecipeError


def open_corpus(resolved: Resolved) -> Corpus:
    """Return the corpus of a run, which is opened once. Raises ConfigError and DataError with all that is wrong."""
    if isinstance(resolved.opened, RecipeError):
        raise resolved.opened
    if resolved.opened is not None:
        opened: Corpus = resolved.opened
        return opened
    from common.data.knowledge.corpus import GENERAL_KNOWLEDGE, EmbeddedCorpus

    config = resolved.config
    folder = resolved.domain_folder
    embedded = EmbeddedCorpus(folder / "knowledge.yaml", GENERAL_KNOWLEDGE, config.embedded, config.seed)
    if config.data == EMBEDDED:
        embedded.check()
        return embedded
    from common.data.general_world import WithGeneralWorld
    from common.data.manifest.manifest import load_manifest
    from common.data.manifest.revisions import NAME, Revisions

    path = folder / "data.yaml" if config.data == HUB else Path(config.data)
    taken = config.model.path is not None  # then the first stage reads no rows
    lends = not taken and config.data != HUB  # those data sets are for a checkpoint; the error says so
    essential = _essential(resolved.nodes, pretrains=not (taken or lends))
    noted = resolved.out / NAME
    revisions = Revisions(noted, fresh=True) if config.run.newest_data else Revisions(noted, resolved.hub_revisions)

    def suited(serves: Callable[[str], bool]) -> list[str]:
        needed = {
            name: _essential(pipeline.nodes(), pretrains=not (taken or lends))
            for name, pipeline in load_pipelines(resolved.repository / "pipelines").items()
        }
        return [name for name, roles in needed.items() if all(map(serves, roles))]

    manifest = load_manifest(path, resolved.data_root, essential=sorted(essential), revisions=revisions, suited=suited)
    return WithGeneralWorld(manifest, embedded) if lends and not manifest.conversations("pretrain") else manifest


def with_corpora(resolved: Resolved) -> Resolved:
    """Return a run whose rows are open, those of all domains of a sequence. Raises what opening them raises."""
    if resolved.members:
        members = {domain: with_corpora(member) for domain, member in resolved.members.items()}
        return replace(resolved, members=members)
    return replace(resolved, opened=open_corpus(resolved))


def data_folder(resolved: Resolved) -> Path | None:
    """Return where the paths of a manifest start; None without a manifest."""
    if resolved.config.data == EMBEDDED:
        return None
    manifest = resolved.domain_folder / "data.yaml" if resolved.config.data == HUB else Path(resolved.config.data)
    return resolved.data_root or manifest.parent


def pipeline_for(resolved: Resolved) -> str | None:
    """Return the shipped pipeline that trains on most of a manifest's roles and needs no other; the shortest of these.

    None where a manifest has rows for none.
    """
    path = resolved.domain_folder / "data.yaml" if resolved.config.data == HUB else Path(resolved.config.data)
    present = set(roles_in(read_manifest(path)))
    found = [
        (len(needed), -len(pipeline.stages), name)
        for name, pipeline in load_pipelines(resolved.repository / "pipelines").items()
        if (needed := _essential(pipeline.nodes(), pretrains=False)) and needed <= present
    ]
    return max(found)[2] if found else None


def _essential(nodes: Sequence[Node], *, pretrains: bool) -> set[str]:
    """Return the roles that stages cannot do without; a base reads rows only where it is pretrained on the data."""
    found = set()
    for node in nodes:
        kind = kind_of(node.kind)
        if kind.roles and not node.sampled and kind.makes != "report" and (pretrains or not kind.starts):
            found.add("replay" if node.fixed.get("replay") == 1 else kind.roles[0])
    return found
