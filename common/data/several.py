"""The corpora of several domains as one, for what is about all of them: the card, the plan's notes, the licence.

Usage: `corpus = Several({"medical": one, "legal": other})`.

Stages read the corpus of their own domain. Nothing reads rows through this one, so it gives none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.data.accounting import RowCount
from common.data.corpus import Corpus, Portion, Row


class Several:
    """What the corpora of some domains say of themselves, together."""

    def __init__(self, corpora: Mapping[str, Corpus]) -> None:
        self.corpora = dict(corpora)

    @property
    def domain_title(self) -> str:
        return ", then ".join(corpus.domain_title for corpus in self.corpora.values())

    def identity(self, roles: Sequence[str]) -> list[dict[str, Any]]:
        return [fact for corpus in self.corpora.values() for fact in corpus.identity(roles)]

    def rows(self, role: str) -> Iterator[Row]:
        raise AssertionError(f"rows of the role {role} are read from the corpus of one domain: expand() gives it one")

    def portions(self, role: str, *, hub: bool = False) -> list[Portion] | None:
        return []

    def counts(self, role: str) -> Mapping[str, RowCount]:
        return {}

    def exam_roles(self, role: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for corpus in self.corpora.values() for name in corpus.exam_roles(role)))

    def conversations(self, role: str) -> Mapping[str, bool]:
        return {name: has for corpus in self.corpora.values() for name, has in corpus.conversations(role).items()}

    def unpaired(self, role: str) -> Mapping[str, bool]:
        return {name: has for corpus in self.corpora.values() for name, has in corpus.unpaired(role).items()}

    def shapes(self) -> Mapping[str, str]:
        return {name: shape for corpus in self.corpora.values() for name, shape in corpus.shapes().items()}

    def findings(self) -> Mapping[str, Sequence[str]]:
        return {name: found for corpus in self.corpora.values() for name, found in corpus.findings().items()}

    def check_rows(self, roles: Sequence[str]) -> None:
        """Check nothing: the corpus of each domain is checked for its own stages."""

    def sources(self) -> list[dict[str, Any]]:
        """Return the sources of all domains; one that they share in every fact, such as the general world, once."""
        everything = (source for corpus in self.corpora.values() for source in corpus.sources())
        return list({json.dumps(source, sort_keys=True, default=str): source for source in everything}.values())
