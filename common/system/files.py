"""Open files that somebody else made or named: regular files alone, so that no read waits for a pipe or a device.

Usage: `text = read_text(path)`; `with open_regular(path) as stream: ...`; `kind_of(path)` names anything else.

Raises what `open` raises, and NotRegular, a DataError and an OSError, for a named pipe, a socket, a device or a folder.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

from common.errors import DataError

KINDS = {
    stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}  # fmt: skip
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


def read_text(path: Path, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Return the text of a regular file, its line ends as they are in memory."""
    return read_bytes(path).decode(encoding, errors).replace("\r\n", "\n").replace("\r", "\n")


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
