"""Rows in a seeded random order, through a buffer that is larger than what is held in memory.

Usage: `for row in shuffled(rows, "17/cpt", folder): …`; long buffers are in unnamed files of `folder`.

Without a folder all of the buffer is in memory. The order is the same.
"""

from __future__ import annotations

import os
import pickle
import random
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from common.data.texts import texts_of

BUFFER = 100_000  # rows that are shuffled through each other
CHARACTERS = 2**28  # of these rows, unless a single one has more
HELD = 2**24  # characters, up to which a buffer is held in memory
FILE = 2**26  # bytes, after which another file begins

Row = dict[str, Any]
Place = bytes  # packed, as there are many: file, first byte, bytes, and the row's characters
_PLACE = struct.Struct("<4Q")


def shuffled(rows: Iterable[Row], key: str, folder: Path | None = None) -> Iterator[Row]:
    """Yield rows in a seeded random order, through a buffer: up to BUFFER rows it is a full shuffle.

    Long rows fill the buffer sooner. Rows then leave it until the new one has room.
    """
    rng = random.Random(key)
    buffer: list[Row | Place] = []
    held = 0
    with _Spilled(folder) as spilled:
        for row in rows:
            size = _characters_of(row)
            # By all that wait, not by those in memory: where these are nearly full, they would take short rows alone,
            # and in the end be many rows of few characters, each with as much memory around it as a long one.
            stays = folder is None or held + size <= HELD
            buffer.append(row if stays else spilled.write(row, size))
            held += size
            while len(buffer) > BUFFER or (held > CHARACTERS and len(buffer) > 1):
                place = rng.randrange(len(buffer) - 1)
                leaving, buffer[place] = buffer[place], buffer[-1]
                buffer.pop()
                held -= _characters_of(leaving)
                yield spilled.take(leaving)
        rng.shuffle(buffer)
        buffer.reverse()
        while buffer:
            yield spilled.take(buffer.pop())


def _characters_of(row: Row | Place) -> int:
    return sum(map(len, texts_of(row))) if isinstance(row, dict) else int(_PLACE.unpack(row)[3])


class _Spilled:
    """Rows in files that have no name, so that a killed process leaves none. A file goes with the last row in it."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._files: dict[int, Any] = {}
        self._rows: dict[int, int] = {}  # that are still in each file
        self._newest, self._end = -1, FILE

    def __enter__(self) -> _Spilled:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def write(self, row: Row, characters: int) -> Place:
        """Write a row, and return its place."""
        if self._end >= FILE:
            if self._newest in self._files:
                self._files[self._newest].flush()
                self._drop_if_empty(self._newest)
            self._newest, self._end = self._newest + 1, 0
            self._files[self._newest] = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 # closed with the last row
            self._rows[self._newest] = 0
        data = pickle.dumps(row, protocol=5)
        self._files[self._newest].write(data)
        place = _PLACE.pack(self._newest, self._end, len(data), characters)
        self._end += len(data)
        self._rows[self._newest] += 1
        return place

    def take(self, row: Row | Place) -> Row:
        """Return a row, which is then here no more."""
        if isinstance(row, dict):
            return row
        number, start, size, _ = _PLACE.unpack(row)
        file = self._files[number]
        if number == self._newest:
            file.flush()
        found: Row = pickle.loads(os.pread(file.fileno(), size, start))  # as this process wrote it
        self._rows[number] -= 1
        if number != self._newest:
            self._drop_if_empty(number)
        return found

    def _drop_if_empty(self, number: int) -> None:
        if self._rows.get(number) == 0:
            self._files.pop(number).close()
            del self._rows[number]
