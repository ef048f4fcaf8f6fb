"""Open a file as a stream of bytes, unpacked on the way where it is packed: gzip, bzip2, xz and Zstandard.

Usage: `with open_bytes(file) as opened: line = opened[0].readline()`; `opened[1](len(line))` is the place on disk.

What a file holds decides, not its name; where the two differ, that is reported. It knows nothing of text.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from common.data.manifest.files.source_file import SourceFile
from common.errors import DataError
from common.system.files import open_regular

BUFFER = 1 << 16  # bytes of its beginning that a look at a file can see
# Of bz2 with its first block, or its end: three letters could begin a text. The others hold bytes that begin none.
_BEGINNINGS = {
    ".gz": re.compile(rb"\x1f\x8b\x08"), ".bz2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
    ".xz": re.compile(rb"\xfd7zXZ\x00"), ".zst": re.compile(rb"\x28\xb5\x2f\xfd"),
}  # fmt: skip
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\x1b\x00")  # NUL: half of a character of UTF-16
READ_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error)
Position = Callable[[int], float]  # how far in the file on disk some unpacked bytes reach, about
Opened = tuple[io.BufferedReader, Position]


class _Counted(io.RawIOBase):
    """A stream that counts what is read from it."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.count = inner, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inner.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


@contextlib.contextmanager
def open_bytes(file: SourceFile) -> Iterator[Opened]:
    """Open a file for reading, unpacked. Raises DataError where its name says packed and its bytes say damaged."""
    with open_regular(file.path) as raw:
        start = raw.read(BUFFER)
        raw.seek(0)
        found = next((packing for packing, sign in _BEGINNINGS.items() if sign.match(start)), "")
        if found != file.packing:
            _report_packing(file, found, start)
        if not found:
            yield io.BufferedReader(raw, BUFFER), float
            return
        packed = _Counted(raw)
        unpacked = _Counted(_unpack(packed, found))
        yield io.BufferedReader(unpacked, BUFFER), lambda size: packed.count * size / max(1, size, unpacked.count)


def _unpack(stream: Any, packing: str) -> Any:
    if packing == ".gz":
        return gzip.GzipFile(fileobj=stream)
    if packing == ".bz2":
        return bz2.BZ2File(stream)
    if packing == ".xz":
        return lzma.LZMAFile(stream)
    import pyarrow  # Python has no Zstandard before 3.14

    return pyarrow.CompressedInputStream(stream, "zstd")


def _report_packing(file: SourceFile, found: str, start: bytes) -> None:
    """Report that a file is packed otherwise than its name says. Raises DataError where it then cannot be text."""
    if found:
        file.tell(f"{file.name} is a {found} file, whatever its name says, and is unpacked as one")
    elif any(byte < 32 and byte not in _TEXT_CONTROLS for byte in start):
        raise DataError(f"{file.name}: is no {file.packing} file, nor text. Download or pack it again.")
    elif start:
        file.tell(f"{file.name} is not packed, whatever its name says, and is read as it is")


def read_problem(file: SourceFile, place: str, error: Exception) -> DataError:
    """Return what to raise where a file could not be read beyond a place, such as `line 12` or `item 3`."""
    if isinstance(error, OSError) and error.strerror:
        return DataError(f"{file.name}: cannot be read: {error.strerror}.")
    text = str(error).strip() or type(error).__name__
    cut = isinstance(error, EOFError) or "runcated" in text
    what = "ends too early, as after a broken download" if cut else f"is damaged ({text})"
    return DataError(f"{file.name}, after {place}: the packed file {what}. Download, copy or pack it again.")
