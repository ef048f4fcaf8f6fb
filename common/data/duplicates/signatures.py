"""MinHash signatures of rows, by datatrove's shingles and hash functions, kept in files that are small and sorted.

Usage: `with PartWriter(folder, Buckets(32, 8), words=5) as writer: writer.add(text)`;
`Sketches(parts, hashes=256).likeness(rows, others)`.

A signature is the one of datatrove's MinhashDedupSignature. Of each bucket a hash of 64 bits is kept, and of each of
the row's hashes its last 8 bits, which tell how alike two rows are (b-bit minwise hashing, arXiv 0910.3349).
"""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.data.duplicates.records import SortedFile
from common.data.duplicates.search import Part, Parts
from common.data.duplicates.splitting import hashing, unchanged, word_tokenizer

RECORD = np.dtype([("key", "<u8"), ("place", "<u4")])
_BANDS, _RAW, _SKETCHES = "buckets", "buckets.raw", "sketches"
_PRIME = np.uint64((1 << 61) - 1)  # datatrove's
_BITS = np.uint64(61)
_MIX, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)
CHUNK = 128  # shingles that are hashed at once, so that they fit into the cache
BATCH = 256  # rows whose signatures are in memory at once
FOUND = 0.99  # of pairs just as alike as asked for, the share that shares a bucket
Array = np.ndarray[Any, np.dtype[Any]]


class Buckets(NamedTuple):
    """How a signature is cut."""

    number: int
    each: int  # hashes

    @property
    def hashes(self) -> int:
        return self.number * self.each

    def found(self, likeness: float) -> float:
        """Return how probable it is that two rows share a bucket."""
        return float(1 - (1 - likeness**self.each) ** self.number)


def choose_buckets(threshold: float, hashes: int) -> Buckets:
    """Return the buckets with the most hashes each that find pairs as alike as the threshold."""
    for each in range(hashes, 1, -1):
        if (buckets := Buckets(hashes // each, each)).found(threshold) >= FOUND:
            return buckets
    return Buckets(hashes, 1)


def margin(threshold: float, hashes: int) -> float:
    """Return how far an estimate may be off: two standard deviations."""
    return 2 * math.sqrt(threshold * (1 - threshold) / hashes)


class PartWriter(AbstractContextManager["PartWriter"]):
    """Writes the signatures of some rows: of each bucket its records, sorted, and the sketches, in the rows' order."""

    def __init__(self, folder: Path, buckets: Buckets, words: int) -> None:
        from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

        config = MinhashConfig(
            n_grams=words, num_buckets=buckets.number, hashes_per_bucket=buckets.each, norm_config=unchanged(),
            hash_config=hashing(),
        )  # fmt: skip
        self._step = MinhashDedupSignature(str(folder), config, language=word_tokenizer())
        self._folder, self._buckets, self._rows = folder, buckets, 0
        self._places = bytearray()
        self._batch: list[Array | None] = []
        self._raw, self._sketches = (folder / _RAW).open("wb"), (folder / _SKETCHES).open("wb")

    def add(self, text: str) -> None:
        """Note the next row."""
        shingles = self._step.get_shingles(text)
        if len(shingles):
            self._places += self._rows.to_bytes(4, "little")
        self._batch.append(signature(shingles, *self._step.parameters) if len(shingles) else None)
        self._rows += 1
        if len(self._batch) == BATCH:
            self._flush()

    def __exit__(self, *error: object) -> None:
        with self._raw, self._sketches:
            if error[0] is None:
                self._flush()
        if error[0] is None:
            self._sort()

    def _flush(self) -> None:
        sketches = np.zeros((len(self._batch), self._buckets.hashes), np.uint8)
        full = [number for number, found in enumerate(self._batch) if found is not None]
        if full:
            signatures = np.stack([found for found in self._batch if found is not None])
            sketches[full] = signatures  # the last 8 bits
            self._raw.write(bucket_keys(signatures, self._buckets).tobytes())
        self._sketches.write(sketches.tobytes())
        self._batch = []

    def _sort(self) -> None:
        places = np.frombuffer(self._places, "<u4")
        with (self._folder / _BANDS).open("wb") as file:
            for bucket in range(self._buckets.number if len(places) else 0):
                keys = np.memmap(self._folder / _RAW, "<u8", mode="r", shape=(len(places), self._buckets.number))
                records = np.empty(len(places), RECORD)
                order = np.argsort(keys[:, bucket], kind="stable")
                records["key"], records["place"] = keys[order, bucket], places[order]
                records.tofile(file)
        (self._folder / _RAW).unlink()


def signature(shingles: Array, multiply: Array, add: Array) -> Array:
    """Return datatrove's signature of shingles (N, 1): for each function the least hash, modulo the prime 2^61 - 1.

    The remainder is taken by bits, and the shingles a few at a time: a long row would need a thousand times its size.
    """
    least: Array | None = None
    for start in range(0, len(shingles), CHUNK):
        hashed = shingles[start : start + CHUNK] * multiply
        hashed += add
        high = hashed >> _BITS
        hashed &= _PRIME
        hashed += high
        found = np.minimum(hashed, hashed - _PRIME).min(axis=0)  # below the prime the difference wraps round
        least = found if least is None else np.minimum(least, found)
    assert least is not None, "there is a shingle"
    return least


def bucket_keys(signatures: Array, buckets: Buckets) -> Array:
    """Return for each row and bucket a hash of the bucket's hashes."""
    cut = signatures.reshape(len(signatures), buckets.number, buckets.each)
    keys = np.zeros(cut.shape[:2], np.uint64)
    for place in range(buckets.each):
        keys = (keys ^ cut[:, :, place]) * _MIX
        keys ^= keys >> _SHIFT
    return keys


def band_file(part: Part, bucket: int, buckets: Buckets) -> SortedFile:
    """Return where the records of a bucket are in a part."""
    path = part.folder / _BANDS
    count = path.stat().st_size // (buckets.number * RECORD.itemsize)
    return SortedFile(path, bucket * count * RECORD.itemsize, count, part.offset)


class Sketches:
    """The sketches of all rows, read where they are asked for."""

    def __init__(self, parts: Parts, hashes: int) -> None:
        self._parts, self._hashes = parts, hashes

    def likeness(self, rows: Array, others: Array) -> Array:
        """Return how alike the two rows of each pair are, about: some pairs agree in 8 bits by chance."""
        agree: Array = (self._take(rows) == self._take(others)).mean(axis=1)
        return (agree * 256 - 1) / 255

    def _take(self, rows: Array) -> Array:
        """Read the sketches of some rows. No file is mapped: pages that were read would count as memory."""
        found = np.empty((len(rows), self._hashes), np.uint8)
        holding = np.searchsorted(self._parts.offsets, rows, side="right") - 1
        for number in np.unique(holding):
            here = np.flatnonzero(holding == number)
            places = (rows[here] - self._parts.offsets[number]).tolist()
            with (self._parts.all[number].folder / _SKETCHES).open("rb", buffering=0) as file:
                for into, place in zip(here.tolist(), places, strict=True):
                    read = os.preadv(file.fileno(), [found[into].data], int(place) * self._hashes)
                    assert read == self._hashes, f"{file.name} has no row {place}"
        return found
