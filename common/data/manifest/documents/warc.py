"""The HTML pages of a web archive (.warc, .warc.gz), record by record, through warcio.

Usage: `for page in pages_of_warc(file): ...`; a page is bytes with the encoding that its server named, or a reason.

It streams: one page is held at a time. What is no page (pictures, scripts, redirects) comes as a reason to be counted;
requests and the like are part of the archive's own books and are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from common.data.accounting import DAMAGED, NO_PAGE, NOT_HTML, REVISIT, TOO_LARGE
from common.data.manifest.files.compression import READ_ERRORS, open_bytes, read_problem
from common.data.manifest.files.source_file import SourceFile
from common.errors import DataError, cut, first_line
from common.system.files import MIB

MOST_BYTES = 2**24  # of one page, unpacked; the text of a page never comes near
MOST_SKIPPED = 2**33  # bytes of one record that are passed over; more is an archive made to last for ever
_PAGES = ("text/html", "application/xhtml+xml")
_CHARSET = re.compile(r"""charset\s*=\s*["']?\s*([\w.:-]+)""", re.I)
_CODINGS = ("", "identity", "gzip", "x-gzip", "deflate")
_URL = 100  # characters of an address that a message shows


class Page(NamedTuple):
    """A page, or why a record is none."""

    number: int  # of the record in the archive, from 1
    data: bytes = b""
    declared: str | None = None  # the encoding that the server named
    reason: str = ""
    detail: str = ""


def pages_of_warc(file: SourceFile) -> Iterator[Page]:
    """Yield the pages of an archive, and a reason for each response that is none; a damaged archive ends in one."""
    from warcio.archiveiterator import ArchiveIterator

    number, given, record = 0, 0, None
    try:
        with open_bytes(file) as (stream, position):
            counted = _Counted(stream)
            for record in ArchiveIterator(counted):
                number += 1
                if record.rec_type in ("response", "resource", "revisit"):
                    given += 1
                    yield _page(number, record, counted)
                counted.since = 0
                file.on_read(position(counted.count))
            if counted.error is not None:  # warcio takes some for the end of the file
                raise counted.error
            if record is not None and getattr(record.raw_stream, "limit", 0) > 0:
                raise EOFError
            if not given:
                yield Page(number + 1, reason=NO_PAGE, detail="ends the archive, and no record before it is a response")
    except (*READ_ERRORS, DataError) as error:
        told = error if isinstance(error, DataError) else read_problem(file, f"record {number}", error)
        yield Page(number + 1, reason=DAMAGED, detail=f"cannot be read: {str(told).rstrip('.')}")
    except MemoryError:
        raise
    except Exception as error:  # ArchiveLoadFailed, and what a damaged head makes of warcio
        yield Page(number + 1, reason=DAMAGED, detail=f"is no record of a WARC file ({first_line(error)[:120]})")
    file.on_read(file.size)


class _Counted:
    """A stream that counts what is read, and gives up within a record that never ends."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.count, self.since = stream, 0, 0
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            data: bytes = self._stream.read(size)
        except Exception as error:
            self.error = error
            raise
        self.count += len(data)
        self.since += len(data)
        if self.since > MOST_SKIPPED:
            self.error = DataError(f"one record has more than {MOST_SKIPPED // MIB:,} MiB")
            raise self.error
        return data


def _page(number: int, record: Any, stream: _Counted) -> Page:
    """Return the page in a record, or why it has none."""
    url = cut(record.rec_headers.get_header("WARC-Target-URI") or "", _URL).partition("?")[0]
    if record.rec_type == "revisit":
        return Page(number, reason=REVISIT, detail=f"{url} is a revisit without content")
    heads = record.http_headers
    status = heads.get_statuscode() if heads is not None else ""
    if status and not status.startswith("2"):
        return Page(number, reason=NO_PAGE, detail=f"{url} was answered with {status[:20]}")
    kind = (heads if heads is not None else record.rec_headers).get_header("Content-Type") or ""
    if kind.partition(";")[0].strip().lower() not in _PAGES:
        return Page(number, reason=NOT_HTML, detail=f"{url} is {kind[:60] or 'of no type'}")
    coding = ((heads.get_header("Content-Encoding") if heads is not None else "") or "").strip().lower()
    if coding not in _CODINGS and not _is_known(coding):
        what = f"{url} is packed as {coding[:20]}, which warcio cannot unpack here"
        return Page(number, reason=DAMAGED, detail=f"{what}. For br, pip install brotli")
    try:
        data = b"".join(_content(record))
    except Exception as error:  # each way of packing has errors of its own
        # It is the archive that is damaged, not what was packed in it, or the machine that has no memory.
        if stream.error is not None or isinstance(error, MemoryError):
            raise
        return Page(number, reason=DAMAGED, detail=f"{url} cannot be unpacked ({first_line(error)[:120]})")
    if len(data) > MOST_BYTES:
        return Page(number, reason=TOO_LARGE, detail=f"{url} has more than {MOST_BYTES // MIB} MiB")
    found = _CHARSET.search(kind)
    return Page(number, data, found[1] if found else None)


def _is_known(coding: str) -> bool:
    from warcio.bufferedreaders import BufferedReader

    return coding in BufferedReader.DECOMPRESSORS


def _content(record: Any) -> Iterator[bytes]:
    stream, size = record.content_stream(), 0
    while size <= MOST_BYTES and (data := stream.read(2**16)):
        size += len(data)
        yield data
