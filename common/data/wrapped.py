"""What corpora that are made of another one share: it answers where they do not.

Usage: `class Cleaned(Wrapped): ...` overrides the methods in which it differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.data.accounting import RowCount
from common.data.corpus import Corpus, Portion, Row


class Wrapped:
    """A corpus that is made of another: all that a class of this kind does not say itself, that one says."""

    def __init__(self, own: Corpus) -> None:
        self._own = own

    def _of(self, role: str) -> Corpus:
        """Return the corpus that serves a role."""
        return self._own

    @property
    def domain_title(self) -> str:
        return self._own.domain_title

    def identity(self, roles: Sequence[str]) -> list[dict[str, Any]]:
        return self._own.identity(roles)

    def rows(self, role: str) -> Iterator[Row]:
        return self._of(role).rows(role)

    def portions(self, role: str, *, hub: bool = False) -> list[Portion] | None:
        return self._of(role).portions(role, hub=hub)

    def counts(self, role: str) -> Mapping[str, RowCount]:
        return self._of(role).counts(role)

    def exam_roles(self, role: str) -> tuple[str, ...]:
        return self._of(role).exam_roles(role)

    def conversations(self, role: str) -> Mapping[str, bool]:
        return self._of(role).conversations(role)

    def unpaired(self, role: str) -> Mapping[str, bool]:
        return self._of(role).unpaired(role)

    def shapes(self) -> Mapping[str, str]:
        return self._own.shapes()

    def findings(self) -> Mapping[str, Sequence[str]]:
        return self._own.findings()
