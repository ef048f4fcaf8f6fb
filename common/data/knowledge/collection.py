"""Load a knowledge file of whatever kind: facts (the default), problems, or a collection of such files.

Usage: `title, worlds = load_worlds(Path("domains/medical/knowledge.yaml"))`.

What a world offers is `common.data.knowledge.world`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from common.config.validation import report
from common.config.yaml import read_yaml
from common.data.knowledge.facts import FactWorld
from common.data.knowledge.file_problems import Checked, load_checked
from common.data.knowledge.knowledge import Knowledge
from common.data.knowledge.problem_file import ProblemFile
from common.data.knowledge.problems import ProblemWorld
from common.data.knowledge.world import World
from common.errors import DataError, did_you_mean

KINDS = ("facts", "problems", "collection")


class Collection(Checked):
    """Several files that together are one domain's knowledge, such as one per language."""

    kind: str = Field(description="what the file holds: collection")
    title: str = Field(min_length=1, description="title of the domain's knowledge, for the card")
    parts: tuple[str, ...] = Field(min_length=1, description="files below the folder of this one")


def load_worlds(path: Path) -> tuple[str, list[World]]:
    """Load a knowledge file; return its title and its worlds. Raises DataError with every problem of a file at once."""
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise DataError(f"{path} holds no keys. Expected kind ({', '.join(KINDS)}) and what belongs to it.")
    kind = raw.get("kind", "facts")
    if kind not in KINDS:
        raise DataError(f"{path}: kind is {kind!r}.{did_you_mean(str(kind), KINDS)}")
    if kind == "collection":
        return _load_collection(path)
    world = _load_one(path, kind, "")
    return world.knowledge.title, [world]


def _load_one(path: Path, kind: str, prefix: str) -> World:
    if kind == "problems":
        return ProblemWorld(path, load_checked(path, ProblemFile), prefix)
    return FactWorld(path, load_checked(path, Knowledge), prefix)


def _load_collection(path: Path) -> tuple[str, list[World]]:
    collection = load_checked(path, Collection)
    worlds: list[World] = []
    problems: list[str] = []
    first: dict[str, str] = {}  # stem -> the part that has it
    for name in collection.parts:
        part = path.parent / name
        if part.stem in first:
            line = f"parts '{first[part.stem]}' and '{name}' share the name '{part.stem}', with which the ids of their "
            problems.append(report(path, [line + "questions begin; rename one"]))
            continue
        first[part.stem] = name
        if not part.resolve().is_relative_to(path.parent.resolve()):
            problems.append(report(path, [f"part '{name}' leaves the folder of this file"]))
            continue
        try:
            part_raw = read_yaml(part)
            kind = part_raw.get("kind", "facts") if isinstance(part_raw, dict) else "facts"
            if kind not in KINDS[:2]:
                raise DataError(f"{part}: kind is {kind!r}; a part of a collection is facts or problems.")
            worlds.append(_load_one(part, kind, f"{part.stem}/"))
        except DataError as error:
            problems.append(str(error))
    problems += [report(path, [line]) for line in _described_twice(worlds)]
    if problems:
        raise DataError("\n".join(problems))
    return collection.title, worlds


def _described_twice(worlds: Sequence[World]) -> list[str]:
    """Name the entities of several parts: what one part teaches, another must not ask."""
    parts: dict[str, list[str]] = {}
    for world in worlds:
        for name in sorted(world.taught_names() | world.hidden_names()):
            parts.setdefault(name, []).append(world.file.name)
    twice = {name: files for name, files in parts.items() if len(files) > 1}
    return [f"'{name}' is described by {' and '.join(files)}; keep it in one of them" for name, files in twice.items()]
