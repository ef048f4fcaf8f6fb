"""A user's data beside the embedded general world, which gives the tiny base the text that the data have none of.

Usage: `corpus = WithGeneralWorld(manifest_corpus, embedded_corpus)`; `corpus.note` says what comes from where.

The base is then that of all runs on embedded knowledge, and it is replayed and examined by what it was trained on,
unless the data bring replay or a general exam of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.data.corpus import Corpus
from common.data.wrapped import Wrapped

LENT = ("pretrain", "replay", "questions_general", "text_general")  # roles that the general world has


class WithGeneralWorld(Wrapped):
    """One corpus of two: each role is served by the user's data or, where they have no such source, the world."""

    def __init__(self, own: Corpus, world: Corpus) -> None:
        super().__init__(own)
        self._world = world
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

    def _of(self, role: str) -> Corpus:
        return self._world if role in self._lent else self._own

    def identity(self, roles: Sequence[str]) -> list[dict[str, Any]]:
        """Return what defines the rows of these roles, in their order."""
        return [fact for role in roles for fact in self._of(role).identity([role])]

    def lends(self, role: str) -> bool:
        """Whether the general world serves a role."""
        return role in self._lent

    def check_rows(self, roles: Sequence[str]) -> None:
        """Read every local row of these roles once. Raises DataError with all that is wrong."""
        self._world.check_rows([role for role in roles if role in self._lent])
        self._own.check_rows([role for role in roles if role not in self._lent])

    def sources(self) -> list[dict[str, Any]]:
        """Return the user's sources and the files of the general world, for the card."""
        lent = [source for source in self._world.sources() if "pretrain" in str(source["role"])]
        return [*self._own.sources(), *lent]
