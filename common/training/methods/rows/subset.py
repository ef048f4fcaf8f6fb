"""A part of the rows for several epochs instead of all of them once, which shortens the stability gap.

Usage: `cpt: {methods: {subset: {share: 0.2, redraw: true}}}`, or `subset: {share: 0.2, by: perplexity}`.

Guo et al. 2024 (arXiv 2406.14833): strategy I trains on a random tenth of the domain's tokens for five epochs in place
of all of them for one; strategy III also draws another part for each epoch (`rate-fixed-data-dynamic`). The budget of
the stage stays, so a share of 0.2 means five passes. Replay keeps its places and rows. Sources are one here, so that a
mixture cannot be beside it.

Strategy II takes the tokens of lowest perplexity under a model of good reference text (KenLM there). With `by` the part
is that of the lowest scores, which a block has left: `perplexity: {model: ..., keep_all: true}` is the paper's. All
sources are then read to their end and packed in the order of the score, so that a packed row holds documents of about
the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from common.config.base import Share
from common.config.methods import MethodSettings, PackedRows, RowsMethod
from common.config.mixture import CurriculumSettings
from common.config.names import NonEmpty

if TYPE_CHECKING:
    from common.config.stages import TrainingSettings


class SubsetSettings(MethodSettings):
    """How large the part is."""

    share: Share = Field(0.2, gt=0, description="share of the stage's own places in a training that one pass fills")
    redraw: bool = Field(False, description="draw another part of the rows for each pass")
    by: NonEmpty | None = Field(
        None, description="score that a block leaves on rows, of which the lowest are the part; none: drawn at random"
    )

    @model_validator(mode="after")
    def _one_part(self) -> SubsetSettings:
        if self.by is not None and self.redraw:
            raise ValueError(f"by={self.by} chooses one part, and redraw draws another for each pass; leave one out")
        return self


def passes(rows: Any, places: int, settings: SubsetSettings, rng: Any) -> tuple[Any, int]:
    """Return (places,) rows that passes over a part fill, and the size of the part. Each pass is a fresh shuffle.

    With `by` the part are the first of the rows.
    """
    import numpy as np

    size = min(len(rows), max(1, round(settings.share * places)))
    part, found = (rng.permutation(rows) if settings.by is None else rows)[:size], []
    for number in range(-(-places // size)):
        if settings.redraw and number:
            part = rng.permutation(rows)[:size]
        found.append(rng.permutation(part))
    return np.concatenate(found)[:places], size


def order(packed: PackedRows, settings: SubsetSettings) -> tuple[Any, dict[str, float]]:
    """Return the order with the stage's own rows from a part of them, and the passes over it."""
    import numpy as np

    from common.training.rows.course import means_of_rows

    own = np.isin(packed.order, packed.own)
    rng = np.random.default_rng([packed.seed, 4])
    found, rows, facts = packed.order.copy(), np.sort(packed.own), dict[str, float]()
    if settings.by is not None:
        scores = means_of_rows(packed.rows, len(rows) and int(rows[-1]) + 1, settings.by)[rows]
        rows = rows[np.argsort(scores, kind="stable")]
    found[own], size = passes(rows, int(own.sum()), settings, rng)
    if settings.by is not None:
        facts = {"mean_score": float(np.sort(scores)[:size].mean()), "mean_of_all": float(scores.mean())}
    return found, {
        "rows": size, "of": len(rows), "passes": round(int(own.sum()) / size, 4), "seen": len(np.unique(found[own])),
        **facts,
    }  # fmt: skip


def problem(own: SubsetSettings, stage: TrainingSettings) -> str:
    """Say what does not go together with a part of the rows, or nothing."""
    if not stage.mixture.asks:
        return ""
    part = "a part drawn from" if own.by is None else f"by={own.by}, the lowest rows of"
    return f"it takes {part} all sources together, and mixture asks for shares or an order of its own. Keep one of them"


METHOD = RowsMethod(
    name="subset", settings=SubsetSettings, order=order, problem=problem,
    scores=lambda own: () if own.by is None else (own.by,),
    sorted_by=lambda own: None if own.by is None else CurriculumSettings(by=own.by),
    phrase="a part of the rows for several epochs, instead of all of them once",
    paper="arXiv 2406.14833, strategies I, II and III", ours="a share of 0.2; the paper's is a tenth, for five epochs",
)  # fmt: skip
