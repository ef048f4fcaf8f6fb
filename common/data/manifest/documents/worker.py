"""Read documents in a process of its own: one that loops, fills the memory or crashes ends this process alone.

Usage: `python -m common.data.manifest.documents.worker`, started by `common.data.manifest.documents.workers`.

It reads a line of JSON for each request from its standard input (and so many bytes behind it, where it says so), and
answers each with one. The system stops it at the limits that it sets itself. It writes no file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from common.data.accounting import DAMAGED, TOO_LARGE
from common.data.manifest.documents.parts import Part, Unreadable
from common.errors import DataError, first_line
from common.system.limited import memory_held

SECONDS = 8  # of the processor for one part: a page of a PDF, a chapter, a page of HTML
DOCLING_SECONDS = 3600  # for a document: it runs models over every page
MEMORY, DOCLING_MEMORY = 2**31, 2**34  # bytes on top of what the process starts with


def parts_of(asked: dict[str, Any], data: bytes) -> Iterator[Part]:
    """Yield the parts of the document that a request names."""
    from common.data.manifest.documents import epub, pages, pdf, word

    form, path, first = asked["format"], Path(asked["path"]), int(asked["first"])
    if form == "page":
        return pages.parts_of_page(data, asked.get("encoding"), asked.get("declared"))
    if form == ".docx":
        return word.parts_of_docx(path)
    if form == ".epub":
        return epub.parts_of_epub(path, first)
    return (pdf.parts_by_docling if asked.get("pdf") == "docling" else pdf.parts_of_pdf)(path, first)


def answer(parts: Iterator[Part], after: int) -> dict[str, Any]:
    """Return the next part of a document as an answer; `fatal` says that this process should not go on."""
    try:
        part = next(parts, None)
    except Unreadable as error:
        part = Part(0, reason=error.reason, detail=error.detail)
    except MemoryError:
        part = Part(after, reason=TOO_LARGE, detail="needs too much memory to be read. Split it")
        return {"part": part, "fatal": True}
    except RecursionError:
        part = Part(0, reason=DAMAGED, detail="nests what it holds too deep")
    except DataError as error:  # of a file that is none
        part = Part(0, reason=DAMAGED, detail=first_line(error))
    except Exception as error:  # libraries raise whatever Python does on files that were made to break them
        part = Part(0, reason=DAMAGED, detail=f"is damaged ({type(error).__name__}: {first_line(error)[:120]})")
    return {"end": True} if part is None else {"part": part}


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run that asks gets it, and stops asking
    logging.disable(logging.CRITICAL)
    _bound(resource.RLIMIT_CORE, 0)
    # Answers go where only this loop writes; what a library prints must not be among them.
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    parts: Iterator[Part] = iter(())
    after = 0
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        if "format" in asked:
            by_docling = asked.get("pdf") == "docling"
            _warm(asked)
            _bound(resource.RLIMIT_AS, (memory_held() or 2**33) + (DOCLING_MEMORY if by_docling else MEMORY))
            data = sys.stdin.buffer.read(int(asked.get("size", 0)))
            seconds = DOCLING_SECONDS if by_docling else SECONDS
            parts, after = iter(()), int(asked["first"])
            with contextlib.suppress(MemoryError):
                parts = parts_of(asked, data)
        _bound(resource.RLIMIT_CPU, math.ceil(time.process_time()) + seconds)
        found = answer(parts, after)
        _send(stream, found)
        if found.get("fatal"):
            return
        after = found["part"].number + 1 if "part" in found else after


def _warm(asked: dict[str, Any]) -> None:
    """Import the libraries of a format before its limits begin."""
    if asked["format"] == "page":
        import trafilatura  # noqa: F401  # loaded, for the reader to find it so
    elif asked["format"] == ".docx":
        import docx  # noqa: F401  # as above
    elif asked["format"] == ".pdf":
        import pypdf  # noqa: F401  # as above


def _send(stream: BinaryIO, found: dict[str, Any]) -> None:
    data = json.dumps(found).encode()
    stream.write(len(data).to_bytes(8, "big") + data)
    stream.flush()


def _bound(what: int, soft: int) -> None:
    """Set a limit of the system, as far as this process may."""
    hard = resource.getrlimit(what)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


if __name__ == "__main__":
    main()
