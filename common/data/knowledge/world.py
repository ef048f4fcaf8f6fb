"""What embedded knowledge offers, whatever its kind: texts, conversations, preference pairs and an exam.

Usage: `for world in load_worlds(Path("domains/medical/knowledge.yaml")): list(world.questions())`.

A file's `kind` says what it holds: `facts` (`common.data.knowledge.facts`; the default), `problems`
(`common.data.knowledge.problems`), or a `collection` of such files, which makes several worlds. Which of them trains
which stage is `common.data.knowledge.corpus`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from common.config.base import Frozen
from common.config.schema import EmbeddedSettings
from common.config.validation import report
from common.config.yaml import read_yaml
from common.data.corpus import Row
from common.data.knowledge.file_problems import load_checked
from common.errors import DataError, did_you_mean

KINDS = ("facts", "problems", "collection")


class World(Protocol):
    """One file of embedded knowledge. Rows do not depend on anything but the file, the settings and the seed."""

    @property
    def file(self) -> Path: ...

    @property
    def title(self) -> str: ...

    @property
    def language(self) -> str:
        """Code of the language of its texts, such as `en`."""
        ...

    def settings_read(self, *, general: bool) -> Mapping[str, frozenset[str]]:
        """Return the settings that a kind of row depends on: `documents`, `heldout`, `conversations`, `preferences`."""
        ...

    def documents(self, settings: EmbeddedSettings, seed: str, *, general: bool, heldout: bool) -> Iterator[Row]:
        """Yield text rows: what continued pre-training reads, or further texts kept for bits per byte."""
        ...

    def conversations(self, settings: EmbeddedSettings, seed: str) -> Iterator[Row]:
        """Yield chat rows about the half that fine-tuning may see."""
        ...

    def preferences(self, settings: EmbeddedSettings, seed: str, *, taught: bool) -> Iterator[Row]:
        """Yield preference rows about the taught half, or about what the exam asks for."""
        ...

    def prompts(self, settings: EmbeddedSettings, seed: str) -> Iterator[Row]:
        """Yield prompts about the half that fine-tuning may see, each with its answer."""
        ...

    def questions(self, asked_elsewhere: frozenset[str] = frozenset()) -> Iterator[Row]:
        """Yield the frozen exam; it does not depend on a seed. Probes leave out the names that others ask about."""
        ...

    def taught_names(self) -> frozenset[str]:
        """Return the names that conversations ask about."""
        ...

    def hidden_names(self) -> frozenset[str]:
        """Return names that no conversation or preference pair may hold, since the exam asks about them."""
        ...

    def source(self) -> dict[str, Any]:
        """Return title, licence, language and where it can be checked, for the card."""
        ...


class Collection(Frozen):
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
    world = _load_one(path, str(kind), "")
    return world.title, [world]


def _load_one(path: Path, kind: str, prefix: str) -> World:
    if kind == "problems":
        from common.data.knowledge.problems import load_problems

        return load_problems(path, prefix)
    from common.data.knowledge.facts import load_facts

    return load_facts(path, prefix)


def _load_collection(path: Path) -> tuple[str, list[World]]:
    collection = load_checked(path, Collection, lambda _file, _lost: [])
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
    problems += [report(path, [line]) for line in _told_twice(worlds)]
    if problems:
        raise DataError("\n".join(problems))
    return collection.title, worlds


def _told_twice(worlds: Sequence[World]) -> list[str]:
    """Name the entities of several parts: what one part teaches, another must not ask."""
    parts: dict[str, list[str]] = {}
    for world in worlds:
        for name in sorted(world.taught_names() | world.hidden_names()):
            parts.setdefault(name, []).append(world.file.name)
    twice = {name: files for name, files in parts.items() if len(files) > 1}
    return [f"'{name}' is told by {' and '.join(files)}; keep it in one of them" for name, files in twice.items()]
