"""How much text each source has before and after cleaning, with a fixed sample of it for whoever counts tokens.

Usage: `amount = Amount(100_000)`; `amount.add("3/17", row)`; `amount.sampled()`.

Cleaning knows no tokenizer, so that runs with different models share its result. A sample is what the rows whose hashes
come first make up: it depends neither on workers nor on the order of tasks. Each task keeps a share of it, and of a
long row its beginning: of a small source of short rows in one of the first tasks it is all of the text.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping

from common.config.blocks import Row
from common.data.texts import texts_of

CHARACTERS = 1_000_000  # of a source that its sample has about, at most
LEAST = 100_000  # of one task, however many come before it
ROW = 20_000  # characters of one row that a sample has at most


class Amount:
    """The characters and UTF-8 bytes of one source, and the texts of some rows."""

    def __init__(self, most: int = CHARACTERS) -> None:
        """`most` is how many characters the sample has, but for its last row."""
        self.characters = self.bytes = 0
        self._most, self._size = most, 0
        self._sample: list[tuple[int, list[str]]] = []  # a heap: the row whose hash comes last leaves first

    def add(self, key: str, row: Row) -> int:
        """Count a row, and return its characters; `key` tells it from every other."""
        texts = [text for text in texts_of(row) if text]
        size = sum(map(len, texts))
        self.characters += size
        self.bytes += sum(len(text.encode("utf-8", "replace")) for text in texts)
        self.keep(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest()), _cut(texts))
        return size

    def keep(self, number: int, texts: list[str]) -> None:
        """Take a row into the sample, unless it has enough of those that come first by their numbers."""
        heapq.heappush(self._sample, (-number, texts))
        self._size += sum(map(len, texts))
        while self._size - (last := sum(map(len, self._sample[0][1]))) >= self._most:
            heapq.heappop(self._sample)
            self._size -= last

    def sampled(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows of the sample, in the order of their numbers."""
        yield from ((-number, texts) for number, texts in sorted(self._sample, reverse=True))

    def merge(self, found: Mapping[str, int]) -> None:
        """Add what another task counted, as `as_dict` gives it; its sample comes row by row."""
        self.characters += found["characters"]
        self.bytes += found["bytes"]

    def as_dict(self) -> dict[str, int]:
        """Return the counts, ready for JSON."""
        return {"characters": self.characters, "bytes": self.bytes}


def sample_of_task(task: int) -> int:
    """Return how many characters of a source a task keeps, by its number: the first ones more."""
    return max(LEAST, CHARACTERS // (task + 1))


def _cut(texts: list[str]) -> list[str]:
    """Return the first ROW characters of some texts."""
    found, room = [], ROW
    for text in texts:
        if room > 0:
            found.append(text[:room])
            room -= len(text)
    return found
