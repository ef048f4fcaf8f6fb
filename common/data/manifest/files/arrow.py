"""Read parquet and arrow files, and folders that `save_to_disk` of the library datasets left, by batches.

Usage: `for record in read_arrow(file, Reading(columns=("q", "a"))): ...`; `shards_of(folder, split)`.

Only the columns that a source names are decoded, where it names some. A cell that cannot be decoded is a flaw of its
row. Dates, decimals and bytes become text. It reads no data set of the Hub: that is `common.data.manifest.hub`.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.json import read_json
from common.data.manifest.files.source_file import Flaw, Reading, Record, SourceFile
from common.errors import DataError, first_line

if TYPE_CHECKING:
    import pyarrow

_NO_DATE = "<value out of range"  # what arrow writes for a date beyond the year 32767
BATCH_ROWS = 1024
BATCH_BYTES = 2**26  # of a batch, as far as a parquet file says how large its rows are
STATE, SPLITS = "state.json", "dataset_dict.json"  # that save_to_disk writes: of a data set, and of several splits

_AGAIN = "Save the data set again, or copy all its files"


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return (folder / STATE).is_file() or (folder / SPLITS).is_file()


def shards_of(folder: Path, split: str | None) -> tuple[Path, ...]:
    """Return the arrow files of a saved data set, or of one split of several, in their order. Raises DataError."""
    if (folder / SPLITS).is_file():
        names = _names(folder / SPLITS, _read_json(folder / SPLITS).get("splits", []))
        if split not in names:
            raise DataError(f"holds the splits {', '.join(names)}. Name one of them with split:")
        folder = folder / str(split)
    state = _read_json(folder / STATE)
    own = state.get("_split")
    if split is not None and own not in (None, split):
        raise DataError(f"holds the split {own} alone, and the source asks for {split}")
    shards = tuple(folder / name for name in _names(folder / STATE, state.get("_data_files", []), "filename"))
    gone = [shard.name for shard in shards if not shard.is_file()]
    if gone or not shards:
        raise DataError(f"lacks {', '.join(gone) or 'its arrow files'}. {_AGAIN}")
    return shards


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path, strict=False)
    except (OSError, ValueError) as error:
        raise _damaged(path, first_line(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, "it holds no object")
    return found


def _names(path: Path, listed: Any, key: str | None = None) -> list[str]:
    """Return the names that a list in a file of `save_to_disk` holds, each in an object at a key where one is given."""
    try:
        names = [item if key is None else item[key] for item in listed]
    except (KeyError, TypeError, IndexError):
        names = [None]
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in names):
        raise _damaged(path, "it lists something that has no name")
    return names


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"has a {path.name} that cannot be read: {why}. {_AGAIN}")


def read_arrow(file: SourceFile, reading: Reading) -> Iterator[Record]:
    """Yield the records of a parquet or arrow file, or of the shards of a folder. Raises DataError."""
    import pyarrow

    kind = "parquet" if file.format == ".parquet" else "arrow"
    row = 0
    try:
        batches = _parquet_batches(file, reading) if kind == "parquet" else _arrow_batches(file, reading)
        for batch, names, read in batches:
            columns = [_Column(batch.column(place), batch.schema.field(place)) for place in range(batch.num_columns)]
            for place in range(batch.num_rows):
                row += 1
                value: dict[str, Any] = dict.fromkeys(names)
                flaw = None
                for column in columns:
                    value[column.name], problem = column.cell(place)
                    if problem and reading.columns:
                        where = f"{file.name}, row {row}"
                        flaw = Flaw("a cell cannot be decoded", f"{where}: column '{column.name}': {problem}")
                file.on_read(read * (place + 1) / batch.num_rows)
                yield Record(f"{file.name}, row {row}", {} if flaw else value, flaw=flaw)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file.name}: not readable as {kind} after row {row}: {error}") from error


Batch = tuple["pyarrow.RecordBatch", Sequence[str], float]


def _parquet_batches(file: SourceFile, reading: Reading) -> Iterator[Batch]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file.path) as table:
        facts = table.metadata
        names = table.schema_arrow.names
        bytes_per_row = sum(facts.row_group(place).total_byte_size for place in range(facts.num_row_groups))
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES * facts.num_rows // max(1, bytes_per_row)))
        done = 0
        for batch in table.iter_batches(batch_size=rows, columns=_used(names, reading)):
            done += batch.num_rows
            yield batch, names, file.size * done / facts.num_rows


def _arrow_batches(file: SourceFile, reading: Reading) -> Iterator[Batch]:
    import pyarrow

    before = 0
    for path in file.shards or (file.path,):
        with pyarrow.memory_map(str(path)) as source:
            names, batches = _open_arrow(source)
            used = _used(names, reading)
            for batch in batches:
                kept = batch.select(used)
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield kept.slice(start, BATCH_ROWS), names, before + source.tell()
        before += path.stat().st_size


def _open_arrow(source: pyarrow.MemoryMappedFile) -> tuple[list[str], Iterable[pyarrow.RecordBatch]]:
    """Return the columns and batches of an arrow file, or stream, which is how the library datasets writes."""
    import pyarrow.ipc

    try:
        table = pyarrow.ipc.open_file(source)
    except pyarrow.ArrowInvalid:
        source.seek(0)
        stream = pyarrow.ipc.open_stream(source)
        return stream.schema.names, stream
    return table.schema.names, map(table.get_batch, range(table.num_record_batches))


def _used(names: Sequence[str], reading: Reading) -> list[str]:
    """Return the columns of a file that a source uses, all where it names none; `a.b` may be one, or be inside `a`."""
    if not reading.columns:
        return list(names)
    wanted = {name if name in names else name.split(".")[0] for name in reading.columns}
    return [name for name in names if name in wanted]


class _Column:
    """A column of one batch as values of Python, decoded at once where that works, else cell by cell."""

    def __init__(self, array: pyarrow.Array, field: pyarrow.Field) -> None:
        """Raises ArrowInvalid where the bytes are no such column."""
        self.name = field.name
        _validate(array)
        self._array = _as_text(array)
        self._is_text = self._array.type == array.type  # and was so before
        self._values: list[Any] | None = None
        with contextlib.suppress(*_bad_cell()):  # one of many
            self._values = self._array.to_pylist()

    def cell(self, row: int) -> tuple[Any, str | None]:
        """Return the value of a row, or None and what is wrong with it."""
        try:
            value = self._array[row].as_py() if self._values is None else self._values[row]
            if isinstance(value, str) and value.startswith(_NO_DATE) and not self._is_text:
                return None, value.strip("<>")
            return _plain(value), None
        except _bad_cell() as error:
            return None, first_line(error)


def _validate(array: pyarrow.Array) -> None:
    """Check the offsets of a column: pyarrow trusts those of a file, and reads beyond its end or aborts the process.

    Raises ArrowInvalid. A cell that is no UTF-8 is seen when it is decoded.
    """
    import pyarrow

    try:
        array.validate(full=True)
    except pyarrow.ArrowInvalid as error:
        if array.type.num_fields or "UTF8" not in str(error):
            raise


def _bad_cell() -> tuple[type[Exception], ...]:
    """Return what pyarrow raises for a cell that is no text, or no date of Python's."""
    import pyarrow

    return pyarrow.ArrowException, ValueError, OverflowError


def _as_text(array: pyarrow.Array) -> pyarrow.Array:
    """Return dates and times as text; Python's own end with the year 9999."""
    import pyarrow

    kinds = pyarrow.types
    if kinds.is_dictionary(array.type):
        array = array.dictionary_decode()
    if kinds.is_date(array.type) or kinds.is_timestamp(array.type) or kinds.is_time(array.type):
        try:
            return array.cast(pyarrow.string())
        except pyarrow.ArrowException:  # a zone that this machine does not know
            return array
    return array


def _plain(value: Any) -> Any:
    """Return a value as JSON could have held it: dates, decimals and bytes are text, inside lists too.

    Bytes that are no text, such as those of a picture, stay bytes: whether a row needs them is not known here.
    """
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode("utf-8")
        return value
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value) if isinstance(value, decimal.Decimal | uuid.UUID | datetime.timedelta) else value
