"""Take lines out of texts that many documents of the same source have: headers, footers, licences, menus.

Usage: in a manifest, `blocks: [{repeated_lines: {documents: 20}}]`.

It looks at all rows of a source before it cuts. Lines are compared without blanks around them, case, and the values of
numbers. They are kept as hashes of 64 bits, sorted in files: memory does not grow with the rows. It cuts lines, not
rows: copies of whole rows or of sentences are the business of deduplication.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from common.config.blocks import Block, BlockContext, BlockSettings, Drop, Row, Task
from common.data.blocks.boilerplate import without
from common.data.shards import write_array
from common.data.texts import noted

if TYPE_CHECKING:
    import numpy as np

_DIGITS = re.compile(r"\d+")
HELD = 1_000_000  # hashes of lines in memory before they are counted, while a task looks
PARTS = 64  # ranges of hashes that are merged one after another
FOUND = "repeated.npy"


class RepeatedLinesSettings(BlockSettings):
    """Which lines go."""

    documents: int = Field(10, ge=2, description="rows of one source that a line must be in before it is cut")
    letters: int = Field(3, ge=1, description="letters below which a line always stays")
    longest: int = Field(300, ge=1, description="characters above which a line always stays")


@dataclass(frozen=True)
class RepeatedLines:
    """Counts the lines of each source over all tasks, then cuts those in too many rows."""

    settings: RepeatedLinesSettings
    folder: Path

    def look(self, task: Task, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield the rows, and write the hashes of their lines with the number of rows that have each."""
        import numpy as np

        held: list[int] = []
        counted = np.zeros((0, 2), np.uint64)
        for row in rows:
            held += self._hashes(row)[0].values()
            yield row
            if len(held) >= HELD:
                counted, held = _added(counted, held), []
        write_array(self.folder / f"lines-{task.number:05d}.npy", _added(counted, held))

    def decide(self, tasks: int) -> None:
        """Write the hashes of the lines that are in too many rows, sorted."""
        import numpy as np

        files = [np.load(self.folder / f"lines-{number:05d}.npy", mmap_mode="r") for number in range(tasks)]
        edges = [part * (2**64 // PARTS) for part in range(1, PARTS)]
        cuts = [[0, *np.searchsorted(file[:, 0], np.array(edges, np.uint64)), len(file)] for file in files]
        found = [np.zeros(0, np.uint64)]
        for part in range(PARTS):
            pieces = [np.asarray(file[cut[part] : cut[part + 1]]) for file, cut in zip(files, cuts, strict=True)]
            summed = _summed(np.concatenate([np.zeros((0, 2), np.uint64), *pieces]))
            found.append(summed[summed[:, 1] >= self.settings.documents, 0])
        write_array(self.folder / FOUND, np.concatenate(found))

    def judge(self, task: Task) -> Callable[[int, Row], Row | Drop]:
        """Return what takes the lines that were found out of a row."""
        import numpy as np

        repeated = np.load(self.folder / FOUND, mmap_mode="r")

        def clean(place: int, row: Row) -> Row | Drop:
            hashes, lines = self._hashes(row)
            if not hashes or not len(repeated):
                return row
            asked = np.fromiter(hashes.values(), np.uint64, len(hashes))
            places = np.minimum(np.searchsorted(repeated, asked), len(repeated) - 1)
            often = {key for key, is_in in zip(hashes, repeated[places] == asked, strict=True) if is_in}
            if not often:
                return row
            cut = [number for number, line in enumerate(lines) if _key(line) in often]
            left = without(lines, cut)
            if not left.strip():
                return Drop("only repeated lines", f"{len(cut)} lines")
            return noted(row | {"text": left}, "repeated lines left out")

        return clean

    def _hashes(self, row: Row) -> tuple[dict[str, int], list[str]]:
        """Return the hash of each different line of a row that may be cut, and all lines."""
        import xxhash

        lines: list[str] = row["text"].split("\n")
        keys = {_key(line) for line in lines if len(line) <= self.settings.longest}
        least, source = self.settings.letters, row["source"]
        usable = [key for key in keys if sum(map(str.isalpha, key)) >= least]
        return {key: xxhash.xxh3_64_intdigest(f"{source}\n{key}".encode("utf-8", "replace")) for key in usable}, lines


def look(settings: RepeatedLinesSettings, context: BlockContext) -> RepeatedLines:
    """Return the two passes over the rows."""
    return RepeatedLines(settings, context.folder)


def _key(line: str) -> str:
    return _DIGITS.sub("0", line.strip().casefold())


def _added(counted: np.ndarray[Any, Any], hashes: list[int]) -> np.ndarray[Any, Any]:
    """Return counts with those of further rows."""
    import numpy as np

    values = np.array(hashes, np.uint64)
    return _summed(np.concatenate([counted, np.stack([values, np.ones_like(values)], axis=1)]))


def _summed(pairs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return pairs of a hash and a number with the numbers of equal hashes added up, sorted."""
    import numpy as np

    if not len(pairs):
        return pairs
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    starts = np.flatnonzero(np.r_[True, pairs[1:, 0] != pairs[:-1, 0]])
    return np.stack([pairs[starts, 0], np.add.reduceat(pairs[:, 1], starts)], axis=1)


BLOCK = Block(
    name="repeated_lines",
    settings=RepeatedLinesSettings,
    look=look,
    phrase="lines that many documents of the same source have, such as headers and footers",
)
