"""Leave out rows that are nearly the same as one that came before, by MinHash over runs of words.

Usage: in a manifest, `blocks: [{minhash: {threshold: 0.8, against: [cpt]}}]`.

How alike two rows are is the share of runs of words that both have, of those that either has (Jaccard). Rows that share
a bucket are looked at; pairs whose whole signatures say that they are less alike than asked for are left. Of rows that
are alike, in a chain too, the first one is kept. Rows shorter than a run of words are left to `exact`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from common.config.blocks import ALL, Block, BlockContext, BlockSettings, Drop, Row
from common.config.names import NonEmpty
from common.data.duplicates.groups import Rows, flatten, join, new_groups, roots
from common.data.duplicates.records import group_heads, in_key_order
from common.data.duplicates.search import Note, Part, Parts, TwoPassSearch, dropping_repeats
from common.data.duplicates.signatures import RECORD, Buckets, PartWriter, Sketches, band_file, choose_buckets, margin
from common.data.texts import texts_of

_KEPT = "kept"
_PAIRS = 1 << 15  # pairs whose signatures are in memory at once


class MinhashSettings(BlockSettings):
    """How alike rows may be."""

    threshold: float = Field(0.8, gt=0, le=1, description="how alike two rows are from which on one goes (Jaccard)")
    words: int = Field(5, ge=1, le=100, description="words in a run; of scripts without spaces, characters")
    hashes: int = Field(256, ge=16, le=4096, description="hashes of a row; more tell better how alike two rows are")
    buckets: int | None = Field(None, ge=1, description="how many buckets; without it they follow from the threshold")
    hashes_per_bucket: int | None = Field(None, ge=1, description="hashes that are equal in a bucket; with buckets")
    verify: bool = Field(True, description="compare rows that share a bucket; without it all are one group")
    against: tuple[NonEmpty, ...] = Field((), description="roles of earlier stages whose rows count as seen")

    @model_validator(mode="after")
    def _both(self) -> MinhashSettings:
        if (self.buckets is None) != (self.hashes_per_bucket is None):
            raise ValueError("buckets and hashes_per_bucket come together; give both or neither")
        return self

    def bands(self) -> Buckets:
        """Return how many buckets there are, and how many hashes each has."""
        if self.buckets is not None and self.hashes_per_bucket is not None:
            return Buckets(self.buckets, self.hashes_per_bucket)
        return choose_buckets(self.threshold, self.hashes)


def look(settings: MinhashSettings, context: BlockContext) -> TwoPassSearch:
    """Return what finds rows that are nearly the same."""
    return TwoPassSearch(settings, context, settings.against, _noting, _decide, _judge)


@contextmanager
def _noting(settings: MinhashSettings, folder: Path) -> Iterator[Note]:
    with PartWriter(folder, settings.bands(), settings.words) as writer:
        yield lambda row: writer.add("\n".join(texts_of(row)))


def _decide(settings: MinhashSettings, parts: Parts, folder: Path) -> None:
    buckets = settings.bands()
    kept, sketches = new_groups(folder / _KEPT, parts.rows), Sketches(parts, buckets.hashes)
    least = settings.threshold - margin(settings.threshold, buckets.hashes) if settings.verify else None
    for bucket in range(buckets.number):
        for records in in_key_order([band_file(part, bucket, buckets) for part in parts.all], RECORD):
            rows, heads, places = records["row"], group_heads(records, ["key"]), np.arange(len(records))
            for others, chosen in ((heads, heads < places), (places - 1, heads < places - 1)):
                _link(kept, sketches, least, rows[others[chosen]], rows[chosen])
    flatten(kept)


def _link(kept: Rows, sketches: Sketches, least: float | None, first: Rows, second: Rows) -> None:
    """Put the rows of those pairs into one group that are alike enough."""
    for start in range(0, len(first), _PAIRS):
        one, two = first[start : start + _PAIRS], second[start : start + _PAIRS]
        apart = roots(kept, one) != roots(kept, two)
        one, two = one[apart], two[apart]
        if least is not None and len(one):
            alike = sketches.likeness(one, two) >= least
            one, two = one[alike], two[alike]
        join(kept, one, two)


def _judge(settings: MinhashSettings, parts: Parts, folder: Path, part: Part) -> Callable[[int, Row], Row | Drop]:
    sketches = Sketches(parts, settings.bands().hashes)

    def like(row: int, first: int) -> str:
        return f"{max(0.0, sketches.likeness(np.array([row]), np.array([first]))[0]):.2f} alike: "

    return dropping_repeats(parts, folder / _KEPT, part, "near duplicate", like)


BLOCK = Block(
    name="minhash", settings=MinhashSettings, look=look, rows=ALL, phrase="rows nearly the same as one before",
    roles=lambda settings: settings.against, paper="Broder 1997, DOI 10.1109/SEQUEN.1997.666900",
)  # fmt: skip
