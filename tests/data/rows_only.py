"""A corpus that has nothing but rows: no accounts of them, and no exam that they must not repeat.

Usage: `class Texts(RowsOnly): def rows(self, role): ...`.
"""

from __future__ import annotations

from common.data.accounting import RowCount


class RowsOnly:
    """What a corpus says besides its rows."""

    def counts(self, role: str) -> dict[str, RowCount]:
        return {}

    def exam_roles(self, role: str) -> tuple[str, ...]:
        return ()
