"""A part of the rows for several epochs instead of all of them once, which shortens the stability gap.

Usage: `cpt: {methods: {subset: {share: 0.2, redraw: true}}}`.

Guo et al. 2024 (arXiv 2406.14833): strategy I trains on a random tenth of the domain's tokens for five epochs in place
of all of them for one; strategy III also draws the part anew for each epoch (`rate-fixed-data-dynamic`). The budget of
the stage stays, so a share of 0.2 means five passes. Replay keeps its places and rows. Which rows have the lowest
perplexity under a reference model (strategy II) is not chosen here.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from common.config.base import Share
from common.config.methods import MethodSettings, PackedRows, RowsMethod


class SubsetSettings(MethodSettings):
    """How large the part is."""

    share: Share = Field(0.2, gt=0, description="share of the stage's own places in a training that one pass fills")
    redraw: bool = Field(False, description="draw another part of the rows for each pass")


def passes(rows: Any, places: int, settings: SubsetSettings, rng: Any) -> tuple[Any, int]:
    """Return (places,) rows that passes over a part fill, and the size of the part. Each pass is a fresh shuffle."""
    import numpy as np

    size = min(len(rows), max(1, round(settings.share * places)))
    part, found = rng.permutation(rows)[:size], []
    for number in range(-(-places // size)):
        if settings.redraw and number:
            part = rng.permutation(rows)[:size]
        found.append(rng.permutation(part))
    return np.concatenate(found)[:places], size


def order(packed: PackedRows, settings: SubsetSettings) -> tuple[Any, dict[str, float]]:
    """Return the order with the stage's own rows from a part of them, and the passes over it."""
    import numpy as np

    own = np.isin(packed.order, packed.own)
    rng = np.random.default_rng([packed.seed, 4])
    found = packed.order.copy()
    found[own], size = passes(np.sort(packed.own), int(own.sum()), settings, rng)
    return found, {"rows": size, "passes": round(int(own.sum()) / size, 4), "seen": len(np.unique(found[own]))}


METHOD = RowsMethod(
    name="subset", settings=SubsetSettings, order=order,
    phrase="a part of the rows for several epochs, instead of all of them once",
    paper="arXiv 2406.14833, strategies I and III", ours="a share of 0.2; the paper's is a tenth, for five epochs",
)  # fmt: skip
