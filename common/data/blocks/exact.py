"""Leave out rows whose text came before: in another source, in another task, or in what an earlier stage read.

Usage: in a manifest, `blocks: [{exact: {ignore: [blanks, unicode, case], against: [cpt]}}]`.

All texts of a row count, in their order, and so do the answer and the label of rows that have them. Of rows that are
the same the first one is kept. Rows that differ in a few words are found by `minhash`.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from common.config.blocks import ALL, Block, BlockContext, BlockSettings, Row
from common.config.names import NonEmpty
from common.data.duplicates.groups import new_groups
from common.data.duplicates.records import SortedFile, group_heads, in_key_order, sort_records
from common.data.duplicates.search import Note, Parts, TwoPassSearch, dropping_repeats
from common.data.texts import texts_of

_KEYS, _KEPT = "keys", "kept"
_DIGEST = np.dtype([("key", "<u8"), ("rest", "<u8")])  # 16 bytes of a hash
_RECORD = np.dtype([*_DIGEST.descr, ("place", "<u4")])
Ignored = Literal["blanks", "unicode", "case"]


class ExactSettings(BlockSettings):
    """What counts as the same text."""

    ignore: tuple[Ignored, ...] = Field(
        ("blanks", "unicode"), description="differences that do not count: blanks, unicode (composed or not), case"
    )
    against: tuple[NonEmpty, ...] = Field((), description="roles of earlier stages whose rows count as seen")


def look(settings: ExactSettings, context: BlockContext) -> TwoPassSearch:
    """Return what finds rows with the same text."""
    return TwoPassSearch(
        settings, context, settings.against, _noting, _decide,
        lambda _, parts, folder, part: dropping_repeats(parts, folder / _KEPT, part, "duplicate"),
    )  # fmt: skip


def digest_of(row: Row, ignore: tuple[Ignored, ...] = ()) -> bytes:
    """Return 16 bytes that stand for the texts of a row, but for what is ignored."""
    found = hashlib.blake2b(digest_size=16)
    for text in texts_of(row):
        if "case" in ignore:
            text = text.casefold()
        if "unicode" in ignore and not text.isascii():
            text = unicodedata.normalize("NFC", text)
        if "blanks" in ignore:
            text = " ".join(text.split())
        data = text.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "little"))  # so that where a text ends counts
        found.update(data)
    if "text" not in row:
        found.update(repr((row.get("answer"), row.get("label"))).encode("utf-8", "surrogatepass"))
    return found.digest()


@contextmanager
def _noting(settings: ExactSettings, folder: Path) -> Iterator[Note]:
    """Note the digest of each row; sorted at the end."""
    digests = bytearray()
    yield lambda row: digests.extend(digest_of(row, settings.ignore))
    found = np.frombuffer(digests, _DIGEST)
    records = np.empty(len(found), _RECORD)
    records["key"], records["rest"], records["place"] = found["key"], found["rest"], np.arange(len(found))
    sort_records(records).tofile(folder / _KEYS)


def _decide(settings: ExactSettings, parts: Parts, folder: Path) -> None:
    kept = new_groups(folder / _KEPT, parts.rows)
    files = [SortedFile(part.folder / _KEYS, 0, part.rows, part.offset) for part in parts.all]
    for records in in_key_order(files, _RECORD):
        rows = records["row"]
        kept[rows] = rows[group_heads(records, ["key", "rest"])]


BLOCK = Block(
    name="exact", settings=ExactSettings, look=look, rows=ALL, phrase="rows whose text came before",
    roles=lambda settings: settings.against,
)  # fmt: skip
