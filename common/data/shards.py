"""Files of rows that one stage writes and another reads: a JSON row per line, compressed with zstandard.

Usage: `write_shard(folder / "rows" / "00003.jsonl.zst", rows)`; `for row in read_shard(path): ...`;
`for path in shards_of(folder): ...`; `with replacing(path) as fresh: fresh.write_bytes(...)`;
`write_array(folder / "scores.npy", values)`.

The same rows make the same bytes. A file appears under its name once it is whole, so that one that is there can be
trusted. It is for our own files only: what people bring is read by `common.data.manifest.readers`.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.data.corpus import Row
from common.errors import DataError
from common.system.files import remove

ROWS, ENDING = "rows", ".jsonl.zst"
_BUFFER = 1 << 20  # bytes that are handed to the compressor, or taken from it, at once


def write_shard(path: Path, rows: Iterable[Row]) -> int:
    """Write rows to a file in place of what it held, and return how many there were. Rows are taken one by one."""
    import pyarrow

    count = 0
    with (
        replacing(path) as fresh,
        pyarrow.output_stream(str(fresh), compression="zstd") as packed,
        io.BufferedWriter(packed, _BUFFER) as lines,
    ):
        for row in rows:
            text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            lines.write(text.encode("utf-8", "surrogatepass") + b"\n")  # half a surrogate pair stays what it is
            count += 1
    return count


def read_shard(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, one by one. Raises DataError for one that is missing or damaged."""
    import pyarrow

    number = 0
    try:
        with (
            pyarrow.input_stream(str(path), compression="zstd") as packed,
            io.BufferedReader(packed, _BUFFER) as lines,
        ):
            for number, line in enumerate(lines, start=1):  # noqa: B007 - named in the error
                yield json.loads(line)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path.name}: expected rows as JSON lines in a zstandard file, got an error after line {number}: "
            f"{str(error).splitlines()[0]}. Remove the result it belongs to and run again."
        ) from error


def shards_of(folder: Path) -> list[Path]:
    """Return the files of rows below a folder, in their order. What a killed process left half-written is not one."""
    return sorted((folder / ROWS).glob(f"[!.]*{ENDING}"))


def write_array(path: Path, values: Any) -> None:
    """Write an array of numpy in place of what the file held."""
    import numpy as np

    with replacing(path) as fresh, fresh.open("wb") as file:
        np.save(file, values, allow_pickle=False)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give another path to write to, a file or a folder, and rename it to this one at the end, if all went well.

    What a killed process left there is removed first, so that nothing of it stays.
    """
    fresh = path.with_name(f".{path.name}.fresh")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(fresh)
    try:
        yield fresh
        if fresh.is_dir():
            remove(path)  # a folder cannot take the place of another
        os.replace(fresh, path)
    finally:
        remove(fresh)
