"""Which positions the rows of a training have: a model learns to read far only where documents are long.

Usage: `share_from(rows.dataset, 32_768, 4_096)`, the share of the positions from 4,096 on.

It reads the lengths of documents, and no tokens.
"""

from __future__ import annotations

from typing import Any

from common.training.rows.packing import PARTS, starts_of

MOST_ROWS = 2000  # evenly spread, of which a share is taken


def share_from(rows: Any, sequence_length: int, first: int) -> float:
    """Return which share of all documents' tokens stand at a position of `first` or more, counted from 0.

    Positions begin at 0 at each document, and where a row is cut. Padding does not count.
    """
    import numpy as np

    places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).astype(int))
    columns = [name for name in ("seq_lengths", PARTS) if name in rows.column_names]
    total = beyond = 0
    for row in rows.select_columns(columns).select(places):
        starts = starts_of(row, sequence_length)
        lengths = np.diff(starts[starts <= sum(row["seq_lengths"])])
        total += int(lengths.sum())
        beyond += int(np.maximum(lengths - first, 0).sum())
    return beyond / total if total else 0.0
