"""Look into a zip archive that is a document (docx, epub) before it is unpacked: bombs and encrypted ones are refused.

Usage: `with open_archive(path) as archive: data = archive.read("word/document.xml")`.

What an archive says of its sizes holds: nothing more is unpacked than that. Archives in it are never opened.
"""

from __future__ import annotations

import contextlib
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from common.data.accounting import DAMAGED, ENCRYPTED, TOO_LARGE
from common.data.manifest.documents.parts import Unreadable
from common.system.files import MIB, open_regular

MOST_UNPACKED = 2**30  # bytes of all files in an archive together
SMALL = 32 * MIB  # up to this size no ratio counts: a short text may be one letter a thousand times
MOST_RATIO = 200  # unpacked to packed; XML of tables reaches 50
MOST_MEMBERS = 20_000
MOST_READ = 2**27  # bytes of one file that is read whole
# What damaged members raise; NotImplementedError: packed in a way that zipfile does not know. A lack of memory is none
# of it: the process that reads must end then.
UNPACKING = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError, OSError, ValueError,
)  # fmt: skip
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")  # Office before 2007, and encrypted documents of today


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive for reading. Raises Unreadable: no archive, encrypted, a bomb."""
    with open_regular(path) as stream:
        start = stream.read(len(_OLE))
        if start == _OLE:
            raise Unreadable(ENCRYPTED, "is encrypted, or of the time before .docx. Save it again without a password")
        try:
            archive = zipfile.ZipFile(stream)
        # OSError: impossible offsets; NotImplementedError: an archive on several disks, or of a later version.
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
            raise Unreadable(DAMAGED, f"is no archive ({error}). Download or copy it again") from error
        with archive:
            _check(archive, path.stat().st_size)
            yield archive


def _check(archive: zipfile.ZipFile, packed: int) -> None:
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if len(members) > MOST_MEMBERS:
        raise Unreadable(TOO_LARGE, f"holds {len(members):,} files; {MOST_MEMBERS:,} are the most that is read")
    if unpacked > MOST_UNPACKED:
        what = f"unpacks to {unpacked // MIB:,} MiB; {MOST_UNPACKED // MIB:,} MiB are the most that is read"
        raise Unreadable(TOO_LARGE, f"{what}. Take its pictures out")
    if unpacked > SMALL and unpacked > MOST_RATIO * packed:
        raise Unreadable(TOO_LARGE, f"unpacks to {unpacked / packed:,.0f} times its size, as a zip bomb does")
    if any(member.flag_bits & 1 for member in members):
        raise Unreadable(ENCRYPTED, "is encrypted. Save it again without a password")


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return what a file in an archive holds. Raises Unreadable where it is not there, damaged or too large."""
    try:
        member = archive.getinfo(name)
        if member.file_size > MOST_READ:
            raise Unreadable(TOO_LARGE, f"holds {name} of {member.file_size // MIB:,} MiB. Split it")
        return archive.read(member)
    except KeyError:
        raise Unreadable(DAMAGED, f"lacks {name}") from None
    except UNPACKING as error:
        raise Unreadable(DAMAGED, f"{name} in it cannot be unpacked ({error})") from error
