"""Open files that somebody else made or named: regular files alone, so that no read waits for a pipe or a device.

Usage: `text = read_text_file(path, largest=2**24)`; `with open_regular(path) as stream: ...`; `kind_of(path)`.

Raises what `open` raises, and NotRegular, a DataError and an OSError, for a named pipe, a socket, a device or a folder.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
from pathlib import Path

from common.errors import DataError

KINDS = {
    stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}  # fmt: skip
MIB = 2**20
MOST_ENTRIES = 100_000  # of a folder whose files are all looked at


class NotRegular(DataError, OSError):
    """A path leads to something that is no file with an end."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(f"{path}: it is {kind}, not a regular file. Give a file that holds the content.")
        self.errno, self.strerror, self.filename = errno.EINVAL, f"it is {kind}, not a regular file", str(path)

    def __str__(self) -> str:  # not that of OSError
        return str(self.args[0])


def kind_of(path: Path) -> str | None:
    """Return what a path leads to, if that is there and no regular file, as `a named pipe`; links are followed."""
    try:
        return _kind(os.stat(path))
    except (OSError, ValueError):
        return None


def _kind(facts: os.stat_result) -> str | None:
    return None if stat.S_ISREG(facts.st_mode) else KINDS.get(stat.S_IFMT(facts.st_mode), "no file of a known kind")


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading bytes. Raises NotRegular, at once, for anything else."""
    if kind := _kind(os.stat(path)):  # opening a device may do something already
        raise NotRegular(path, kind)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    if kind := _kind(os.fstat(descriptor)):  # put there since
        os.close(descriptor)
        raise NotRegular(path, kind)
    return io.BufferedReader(io.FileIO(descriptor, "rb"))


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a regular file."""
    with open_regular(path) as stream:
        return stream.read()


def read_text_file(path: Path, *, largest: int) -> str:
    """Return the text of a file, without a byte order mark.

    Raises DataError: missing, no regular file, of more than `largest` bytes, not UTF-8.
    """
    try:
        with open_regular(path) as stream:
            data = stream.read(largest + 1)
    except FileNotFoundError:
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise DataError(f"{path}: no such file{where}.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if len(data) > largest:
        raise DataError(f"{path}: is larger than {largest // MIB} MiB, the most that is read of such a file.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from error


def remove(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link alone; what is not there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_files(folder: Path, *, below: bool = False) -> None:
    """Check that a folder which a library reads holds files and folders alone; with `below`, also those in it.

    Raises NotRegular, and DataError for more than MOST_ENTRIES entries. No link to a folder is followed.
    """
    places, seen = [folder], 0
    while places:
        with os.scandir(places.pop()) as entries:
            for entry in entries:
                seen += 1
                if seen > MOST_ENTRIES:
                    raise DataError(f"{folder} holds more than {MOST_ENTRIES:,} files. Give a folder of its own.")
                path = Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    places += [path] * below
                elif not path.is_dir() and (kind := kind_of(path)):
                    raise NotRegular(path, kind)
