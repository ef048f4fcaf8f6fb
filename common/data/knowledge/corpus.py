"""The corpus of a run on embedded knowledge: a domain's worlds, and the general world beside them.

Usage: `EmbeddedCorpus(domain_file, general_file, settings, seed).rows("cpt")`.

It says which world serves which role; rendering is `common.data.knowledge.facts` and `common.data.knowledge.problems`.
The general world trains the tiny base, is replayed later, and shows what was forgotten.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.config.defaults import differing
from common.config.schema import EmbeddedSettings
from common.data.accounting import RowCount
from common.data.corpus import Portion, Row
from common.data.knowledge.collection import load_worlds
from common.data.knowledge.world import World
from common.data.texts import texts_of
from common.errors import DataError, did_you_mean
from common.store.artifacts import digest_file

GENERAL_KNOWLEDGE = Path(__file__).parents[1] / "general" / "knowledge.yaml"
NAMELESS = ("sft", "preference", "prompts")  # roles that may not name what the exam asks about


class _Role(NamedTuple):
    """Whose worlds make the rows of a role, and what of the settings they depend on."""

    side: str
    reads: tuple[str, ...] = ()  # kinds of rows of a world, which knows their settings
    settings: frozenset[str] = frozenset()  # read here, whatever the world
    seeded: bool = True


_MIX = _Role("general", ("documents", "conversations"), frozenset({"question_repeats"}))
_ROLES = {
    "pretrain": _MIX,
    "replay": _MIX,
    "cpt": _Role("domain", ("documents",)),
    "sft": _Role("domain", ("conversations",)),
    "prompts": _Role("domain", ("conversations",)),
    "preference": _Role("domain", ("preferences",)),
    "preference_heldout": _Role("domain"),
    "questions_domain": _Role("domain", seeded=False),
    "questions_general": _Role("general", seeded=False),
    "text_domain": _Role("domain", ("heldout",)),
    "text_general": _Role("general", ("heldout",)),
}


class EmbeddedCorpus:
    """The corpus of a run on embedded knowledge: one domain file and the general world."""

    def __init__(self, domain_file: Path, general_file: Path, settings: EmbeddedSettings, seed: int) -> None:
        self.settings = settings
        self.seed = seed
        self._files = {"domain": domain_file, "general": general_file}
        self._loaded: dict[str, tuple[str, list[World]]] = {}
        self._counts: dict[str, dict[str, RowCount]] = {}

    def worlds(self, side: str) -> list[World]:
        """Return the worlds of `domain` or `general`, loaded and checked at first use."""
        return self._load(side)[1]

    def _load(self, side: str) -> tuple[str, list[World]]:
        if side not in self._loaded:
            path = self._files[side]
            if not path.is_file():
                raise DataError(
                    f"{path} is missing; data=embedded needs it. `just new-domain name=<name>` makes a folder with "
                    "all files; data=hub or data=<manifest> needs no embedded knowledge."
                )
            self._loaded[side] = load_worlds(path)
        return self._loaded[side]

    def check(self) -> None:
        """Load all files, so that every problem of theirs shows before anything is spent. Raises DataError."""
        for side in self._files:
            self._load(side)

    def conversations(self, role: str) -> dict[str, bool]:
        """Return the sources of a role by id, each with whether the role has conversations."""
        return dict.fromkeys(self._ids(role), "conversations" in _role(role).reads)

    def unpaired(self, role: str) -> dict[str, bool]:
        """Return that all preferences are pairs."""
        return dict.fromkeys(self._ids(role), False)

    def _ids(self, role: str) -> list[str]:
        return [f"embedded {world.knowledge.title}" for world in self.worlds(_role(role).side)]

    def shapes(self) -> dict[str, str]:
        """Return nothing: these rows are rendered, not read."""
        return {}

    def findings(self) -> dict[str, list[str]]:
        """Return nothing: its files have one format."""
        return {}

    def check_rows(self, roles: Sequence[str]) -> None:
        """Look for names of the exam in conversations and pairs; `check` has seen every fact and template."""
        for role in roles:
            if role in NAMELESS:
                self._checked(role)

    @property
    def domain_title(self) -> str:
        return self._load("domain")[0]

    def identity(self, roles: Sequence[str]) -> list[dict[str, Any]]:
        """Return what defines the rows of these roles: file digests, render settings and seed; never a path."""
        facts = []
        for name in roles:
            role = _role(name)
            read = [world.settings_read(general=role.side == "general") for world in self.worlds(role.side)]
            names = role.settings.union(*(settings[kind] for settings in read for kind in role.reads))
            settings = differing(self.settings, EmbeddedSettings.model_fields.keys() - names)
            seed = {"seed": self.seed} if role.seeded else {}
            facts.append({"role": name, "embedded": {role.side: self._digest(role.side)}, **settings, **seed})
        return facts

    def _digest(self, side: str) -> str:
        """Return the digest of a side's file, or of all its files where it is a collection."""
        files = dict.fromkeys([self._files[side], *(world.file for world in self.worlds(side))])
        digests = [digest_file(path) for path in files]
        return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def rows(self, role: str) -> Iterator[Row]:
        """Yield the rows of a role. Raises DataError for a role that embedded knowledge does not have."""
        rows = self._checked(role)
        counts = self._counts[role] = {}
        for row in rows:
            count = counts.setdefault(row["source"], RowCount(row["source"], role))
            count.rows_in += 1
            count.rows_out += 1
            yield row

    def portions(self, role: str, *, hub: bool = False) -> list[Portion]:
        """Return the rows of a role, uncounted. They are made at once, so all of them have been read."""
        return [Portion("", self._rows(role), 1.0, lambda: 1.0)]

    def counts(self, role: str) -> dict[str, RowCount]:
        """Return the accounts of a role by source, as far as its rows have been read."""
        return self._counts.get(role, {})

    def exam_roles(self, role: str) -> tuple[str, ...]:
        """Return the exams that a role is checked against: the base's text knows no domain, so all domains share it."""
        return ("questions_general",) if role == "pretrain" else ("questions_domain", "questions_general")

    def sources(self) -> list[dict[str, Any]]:
        """Return the knowledge files for the card: title, licence, digest and where the facts can be checked."""
        roles = {"domain": "cpt, sft, preference, eval", "general": "pretrain, replay, eval"}
        return [
            {
                "id": f"embedded {world.knowledge.title}",
                "role": roles[side],
                **world.source(),
                "digest": digest_file(world.file),
                "rows": None,
            }
            for side in ("domain", "general")
            for world in self.worlds(side)
        ]

    def _checked(self, role: str) -> list[Row]:
        """Return the rows of a role; those of NAMELESS name nothing that the exam asks about."""
        rows = list(self._rows(role))
        if role in NAMELESS:
            check_no_hidden_name(rows, self.worlds("domain"), role)
        return rows

    def _rows(self, role: str) -> Iterator[Row]:
        side = _role(role).side
        settings, seed, general, worlds = self.settings, f"{self.seed}/{side}", side == "general", self.worlds(side)
        if role in ("pretrain", "replay"):
            for world in worlds:
                yield from world.documents(settings, seed, general=general, heldout=False)
            conversations = [row for world in worlds for row in world.conversations(settings, seed)]
            for _ in range(settings.question_repeats):
                yield from conversations
            return
        taught = frozenset().union(*(world.taught_names() for world in worlds))
        for world in worlds:
            match role:
                case "cpt" | "text_domain" | "text_general":
                    yield from world.documents(settings, seed, general=general, heldout=role != "cpt")
                case "sft":
                    yield from world.conversations(settings, seed)
                case "prompts":
                    yield from world.prompts(settings, seed)
                case "preference" | "preference_heldout":  # the held-out ones ask what preference tuning never sees
                    yield from world.preferences(settings, str(self.seed), taught=role == "preference")
                case _:
                    yield from world.questions(taught)


def _role(name: str) -> _Role:
    if name not in _ROLES:
        raise DataError(f"Embedded knowledge has no role '{name}'.{did_you_mean(name, _ROLES)}")
    return _ROLES[name]


def check_no_hidden_name(rows: Sequence[Row], worlds: Sequence[World], role: str) -> None:
    """Raise DataError when a training conversation names what the exam asks about."""
    names = frozenset().union(*(world.hidden_names() for world in worlds))
    if not names:
        return
    pattern = re.compile(r"(?<!\w)(" + "|".join(re.escape(name) for name in sorted(names)) + r")(?!\w)")
    for row in rows:
        for text in texts_of(row):
            if met := pattern.search(text):
                raise DataError(
                    f"The {role} row {text!r} names {met.group(0)!r}, an entity of the exam half. Only documents may "
                    "tell about it; ask about the taught half instead."
                )
