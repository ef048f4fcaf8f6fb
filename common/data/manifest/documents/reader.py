"""Read documents (HTML, PDF, docx, epub, WARC) as records of text, and count what cannot be read.

Usage: `for record in read_document(file, Reading(unit="paragraph")): ...`.

A document that cannot be read costs its own rows and never the source's: it comes as a record with a flaw. What is a
missing package is an error, as no document of the format could be read.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

from common.data.accounting import DAMAGED, TOO_LARGE
from common.data.manifest.documents.parts import Part
from common.data.manifest.documents.warc import pages_of_warc
from common.data.manifest.documents.workers import read_parts
from common.data.manifest.files.compression import READ_ERRORS, open_bytes, read_problem
from common.data.manifest.files.source_file import PAGES, Flaw, Reading, Record, SourceFile
from common.data.manifest.files.texts import numbered_pieces
from common.errors import DataError
from common.system.files import MIB

MOST_BYTES = 2**26  # of one file of HTML, unpacked
_PACKAGES = {
    ".pdf": ("pypdf",), ".docx": ("docx", "lxml"), ".epub": ("lxml",), ".warc": ("warcio", "trafilatura"),
    **dict.fromkeys(PAGES, ("trafilatura",)),
}  # fmt: skip
_DISTRIBUTIONS = {"docx": "python-docx"}
_PARTS = {".pdf": "page", ".epub": "chapter"}


def read_document(file: SourceFile, reading: Reading) -> Iterator[Record]:
    """Yield the records of a document. Raises DataError where a package is missing, or the file cannot be opened."""
    require(file, reading)
    if file.format == ".warc":
        for page in pages_of_warc(file):
            where = f"{file.name}, record {page.number}"
            if page.reason:
                yield _flawed(where, page.reason, page.detail)
                continue
            parts = read_parts({"format": "page", "path": "", "declared": page.declared}, page.data)
            for part in parts:
                yield from _records(where, part, reading.unit, numbered=False)
        return
    if file.size == 0:
        yield _flawed(file.name, DAMAGED, "is empty")
    elif file.format in PAGES:
        yield from _of_page(file, reading)
    else:
        yield from _of_parts(file, reading)
    file.on_read(file.size)


def require(file: SourceFile, reading: Reading) -> None:
    """Check that the packages which read a document are installed. Raises DataError."""
    by_docling = file.format == ".pdf" and reading.pdf == "docling"
    names = ("docling",) if by_docling else _PACKAGES[file.format]
    missing = [_DISTRIBUTIONS.get(name, name) for name in names if importlib.util.find_spec(name) is None]
    if missing:
        extra, form = ("docling", "PDF with docling") if by_docling else ("documents", file.format)
        raise DataError(
            f"{file.name}: reading {form} needs {' and '.join(missing)}, not installed here. "
            f"Run: pip install 'domain-recipes[{extra}]'."
        )


def readers_of(formats: Sequence[str], pdf: str) -> dict[str, str]:
    """Return the versions of the packages that read some formats: another may find another text in the same file."""
    names = {name for form in formats for name in _PACKAGES.get(form, ())}
    if ".pdf" in formats and pdf == "docling":
        names = names - {"pypdf"} | {"docling"}
    found = {}
    for name in sorted(_DISTRIBUTIONS.get(name, name) for name in names):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def _of_page(file: SourceFile, reading: Reading) -> Iterator[Record]:
    try:
        with open_bytes(file) as (stream, _):
            data = stream.read(MOST_BYTES + 1)
    except (*READ_ERRORS, DataError) as error:
        told = error if isinstance(error, DataError) else read_problem(file, "its start", error)
        yield _flawed(file.name, DAMAGED, f"cannot be read: {str(told).removeprefix(file.name).strip(':, .')}")
        return
    if len(data) > MOST_BYTES:
        yield _flawed(file.name, TOO_LARGE, f"has more than {MOST_BYTES // MIB} MiB. Split it")
        return
    for part in read_parts({"format": "page", "path": "", "encoding": reading.encoding}, data):
        yield from _records(file.name, part, reading.unit)


def _of_parts(file: SourceFile, reading: Reading) -> Iterator[Record]:
    """Yield the records of a document that is read by its parts; with `unit: file` they are one record."""
    asked: dict[str, Any] = {"format": file.format, "path": str(file.path.resolve())}
    if file.format == ".pdf":
        asked["pdf"] = reading.pdf
    name = _PARTS.get(file.format)
    texts: list[str] = []
    for part in read_parts(asked):
        where = f"{file.name}, {name} {part.number}" if name and part.number else file.name
        if part.reason:
            yield _flawed(where, part.reason, part.detail)
        elif name and reading.unit == "file":
            texts.append(part.text)
        else:
            yield from _records(where, part, reading.unit, numbered=name is None)
    if texts:
        yield Record(f"{file.name}, {name} 1", {"text": "\n\n".join(texts)})


def _records(where: str, part: Part, unit: str, *, numbered: bool = True) -> Iterator[Record]:
    """Yield the records of one part; their places count paragraphs where the part is the whole document."""
    if part.reason:
        yield _flawed(where, part.reason, part.detail)
        return
    for number, text in numbered_pieces(part.text, unit):
        place = f"{where}, {'line' if unit == 'line' else 'paragraph'} {number}"
        yield Record(place if numbered else where, {"text": text})


def _flawed(where: str, reason: str, detail: str) -> Record:
    return Record(where, {}, flaw=Flaw(reason, f"{where}: {detail}"))
