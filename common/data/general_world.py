"""A user's data beside the embedded general world, which gives the tiny base the text that the data have none of.

Usage: `corpus = WithGeneralWorld(manifest_corpus, embedded_corpus)`; `corpus.note` says what comes from where.

The base is then that of all runs on embedded knowledge, and it is replayed and examined by what it was trained on,
unless the data bring replay or a general exam of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.data.accounting import RowCount
from common.data.corpus import Corpus, Portion, Row

LENT = ("pretrain", "replay", "questions_general", "text_general")  # roles that the general world has


class WithGeneralWorld:
    """One corpus of two: each role is served by the user's data or, where they have no such source, the world."""

    def __init__(self, own: Corpus, world: Corpus) -> None:
        self._own, self._world = own, world
        self._lent = tuple(role for role in LENT if role == "pretrain" or not own.conversations(role))

    @property
    def note(self) -> str:
        """What the general world gives, for a plan."""
        more = [name for role, name in (("replay", "replay"), ("questions_general", "the general exam"))
                if role in self._lent]  # fmt: skip
        besides = f", as do {' and '.join(more)}" if more else ""
        return (
            f"No source has role: pretrain, so the tiny base learns from the embedded general world{besides}. "
            "model.path=<checkpoint> starts from a real model instead."
        )

    @property
    def domain_title(self) -> str:
        return self._own.domain_title

    def _of(self, role: str) -> Corpus:
        return self._world if role in self._lent else self._own

    def identity(self, roles: Sequence[str]) -> list[dict[str, Any]]:
        """Return what defines the rows of these roles, in their order."""
        return [fact for role in roles for fact in self._of(role).identity([role])]

    def rows(self, role: str) -> Iterator[Row]:
        """Yield the rows of a role, in the same order every time."""
        return self._of(role).rows(role)

    def portions(self, role: str, *, hub: bool = False) -> list[Portion] | None:
        """Return the rows of a role by source, apart from its accounts."""
        return self._of(role).portions(role, hub=hub)

    def counts(self, role: str) -> Mapping[str, RowCount]:
        """Return the accounts of a role by source id, as far as its rows have been read."""
        return self._of(role).counts(role)

    def exam_roles(self, role: str) -> tuple[str, ...]:
        """Return the exams that rows of a role must not repeat."""
        return self._of(role).exam_roles(role)

    def conversations(self, role: str) -> Mapping[str, bool]:
        """Return the sources of a role by id, each with whether it has conversations."""
        return self._of(role).conversations(role)

    def unpaired(self, role: str) -> Mapping[str, bool]:
        """Return the sources of a role by id, each with whether it has single answers with a label, and no pairs."""
        return self._of(role).unpaired(role)

    def shapes(self) -> Mapping[str, str]:
        """Return what the rows of each of the user's sources were taken for, by id."""
        return self._own.shapes()

    def lends(self, role: str) -> bool:
        """Whether the general world serves a role."""
        return role in self._lent

    def findings(self) -> Mapping[str, Sequence[str]]:
        """Return what was found out about the user's files so far."""
        return self._own.findings()

    def check_rows(self, roles: Sequence[str]) -> None:
        """Read every local row of these roles once. Raises DataError with all that is wrong."""
        self._world.check_rows([role for role in roles if role in self._lent])
        self._own.check_rows([role for role in roles if role not in self._lent])

    def sources(self) -> list[dict[str, Any]]:
        """Return the user's sources and the files of the general world, for the card."""
        lent = [source for source in self._world.sources() if "pretrain" in str(source["role"])]
        return [*self._own.sources(), *lent]
