"""What was kept of a teacher's logits, on the disk: the K largest at each learned position of each packed row.

Usage:
    store = TopKStore(folder, places, length=128, k=16)
    store.write(number, rows)             # a shard, whole or not at all; `store.places_of(number)` says of which rows
    columns = store.columns(batch_places, learned_in(labels_BT))

Rows are known by their place among all prepared rows, which `with_places` gives them. Every shard has equally many: the
last one is filled up with the first rows, so that processes that share a teacher pass through it equally often. A shard
is a file of safetensors, read by its parts. Of each position it holds K token ids (int32), their log-probabilities
(float32) and the logarithm of the probability that is left for all others: 8 K + 4 bytes.
Shapes: B rows, T tokens, K kept logits, N learned positions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from common.store.artifacts import flush
from common.training.rows.shards import TEACHER

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

PLACE = "place"  # a column: the place of a row among all that are prepared
SHARDS = 32  # of few rows; what a killed process loses is one of its own
POSITIONS = 2**18  # of a shard, at most
IDS, LOG_PROBS, REST, STARTS = "ids", "log_probs", "rest", "starts"


class TopK(NamedTuple):
    """What is kept of some positions, one row behind the other."""

    ids_NK: np.ndarray
    log_probs_NK: np.ndarray
    rest_N: np.ndarray


def with_places(rows: Dataset) -> Dataset:
    """Return rows with a column that says their place. They stay where they are on the disk."""
    import numpy as np
    from datasets import Dataset, concatenate_datasets

    return concatenate_datasets([rows, Dataset.from_dict({PLACE: np.arange(len(rows))})], axis=1)


def learned_in(labels_BT: np.ndarray) -> np.ndarray:
    """Return whether each position has a next token that is learned; the last one has none."""
    import numpy as np

    return np.pad(labels_BT[:, 1:] >= 0, ((0, 0), (0, 1)))


@dataclass(frozen=True)
class TopKStore:
    """The shards in one folder. It has no open files, so that workers of a data loader may have it too."""

    folder: Path
    places: np.ndarray  # of the rows, ascending
    length: int  # tokens of a row
    k: int

    @property
    def rows_each(self) -> int:
        return max(1, min(-(-len(self.places) // SHARDS), POSITIONS // self.length))

    @property
    def shards(self) -> int:
        return -(-len(self.places) // self.rows_each)

    def places_of(self, number: int) -> np.ndarray:
        """Return the places of the rows of a shard."""
        start = number * self.rows_each
        return self.places.take(range(start, start + self.rows_each), mode="wrap")

    def is_done(self, number: int) -> bool:
        """Whether a shard is there, whole and of as many logits."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self._path(number)), framework="numpy") as file:
                return list(file.get_slice(IDS).get_shape())[1:] == [self.k]
        except (OSError, SafetensorError):
            return False

    def write(self, number: int, rows: Sequence[TopK]) -> None:
        """Write what is kept of the rows of a shard; its file gets its name once its bytes are on the disk."""
        import numpy as np
        from safetensors.numpy import save

        assert len(rows) == self.rows_each, "a shard has all of its rows"
        self.folder.mkdir(parents=True, exist_ok=True)
        starts = np.cumsum([0, *(len(row.rest_N) for row in rows)], dtype=np.int64)
        ids_NK, log_probs_NK, rest_N = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        path = self._path(number)
        fresh = path.with_suffix(".new")
        tensors = {STARTS: starts, IDS: ids_NK.astype(np.int32), LOG_PROBS: log_probs_NK, REST: rest_N}
        fresh.write_bytes(save(tensors))  # not by safetensors, which has an error of its own for a full disk
        flush(fresh)
        os.replace(fresh, path)
        flush(self.folder)

    def read(self, place: int) -> TopK:
        """Return what is kept of the row at a place."""
        import numpy as np
        from safetensors import safe_open

        number, row = divmod(int(np.searchsorted(self.places, place)), self.rows_each)
        with safe_open(str(self._path(number)), framework="numpy") as file:
            start, stop = (int(bound) for bound in file.get_slice(STARTS)[row : row + 2])
            return TopK(*(file.get_slice(name)[start:stop] for name in (IDS, LOG_PROBS, REST)))

    def columns(self, places: Sequence[int], learned_BT: np.ndarray) -> dict[str, Any]:
        """Return columns for a batch of rows: ids (B, T, K) int64, log-probabilities and what is left; 0 elsewhere."""
        import numpy as np

        shape = (*learned_BT.shape, self.k)
        ids_BTK, log_probs_BTK = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        rest_BT = np.zeros(shape[:2], np.float32)
        for number, (place, learned_T) in enumerate(zip(places, learned_BT, strict=True)):
            found = self.read(place)
            ids_BTK[number, learned_T] = found.ids_NK
            log_probs_BTK[number, learned_T] = found.log_probs_NK
            rest_BT[number, learned_T] = found.rest_N
        return {f"{TEACHER}{IDS}": ids_BTK, f"{TEACHER}{LOG_PROBS}": log_probs_BTK, f"{TEACHER}{REST}": rest_BT}

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05}.safetensors"
