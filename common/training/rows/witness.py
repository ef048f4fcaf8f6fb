"""What hears of every row that training reads; by default it does nothing with it.

Usage: `rows = build_rows(context, tokenizer, role="sft", assistant_only=True, witness=origins)`.

A preview shows from which row the tokens of a packed row come, and which rows were dropped. It hears so from the code
that trains, so that it needs no reading of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.data.accounting import RowCount


class Witness:
    """Hears of rows one by one, as they are read. `count` is the account of a row's source in its role."""

    def kept(
        self, count: RowCount, row: dict[str, Any], ids: Sequence[int], labels: Sequence[int], changed: Sequence[str]
    ) -> None:
        """A row, or a piece of a long text, became these tokens and labels; `changed` is what was done with it."""

    def dropped(self, count: RowCount, row: dict[str, Any], reason: str) -> None:
        """A row is left out."""

    def drop(self, count: RowCount, row: dict[str, Any], reason: str) -> None:
        """Count a row that is left out, and hear of it."""
        count.drop(reason)
        self.dropped(count, row, reason)


NOBODY = Witness()
