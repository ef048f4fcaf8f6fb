"""Make small documents of each format: what the tests of readers share."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PROSE = (
    "The heart pumps blood through the body, and its valves keep the blood from flowing back.",
    "A murmur is a sound that blood makes when it flows in an unusual way, for instance through a narrow valve.",
    "Most murmurs of children are harmless, and a doctor listens again when the child has grown.",
)
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def page(body: str, head: str = "<title>T</title>") -> str:
    return f"<!doctype html><html><head>{head}</head><body>{body}</body></html>"


def article(texts: Sequence[str] = PROSE) -> str:
    """A page with a menu and a footer around its text."""
    menu = "".join(f'<li><a href="/{name}">Menu {name}</a></li>' for name in ("home", "about", "contact"))
    prose = "".join(f"<p>{text}</p>" for text in texts)
    footer = "<footer><p>All rights reserved by nobody.</p></footer>"
    return page(f"<nav><ul>{menu}</ul></nav><article><h1>Murmurs</h1>{prose}</article>{footer}")


def pdf(pages: Sequence[str | None], *, fonts: str = "/Encoding /WinAnsiEncoding") -> bytes:
    """A PDF whose pages show a text each; None is a page of a picture alone, an empty text a blank one."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(count))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {count} /Kids [{kids}] >>".encode(),
        f"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica {fonts} >>".encode(),
    ]
    for number, text in enumerate(pages):
        pictures = f"/XObject << /Im0 {4 + 2 * count} 0 R >>" if text is None else ""
        lines = [
            line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)") for line in (text or "").split("\n")
        ]
        shown = " T* ".join(f"({line}) Tj" for line in lines) if text else ""
        content = f"BT /F1 12 Tf 14 TL 50 700 Td {shown} ET".encode("cp1252")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {5 + 2 * number} 0 R "
            f"/Resources << /Font << /F1 3 0 R >> {pictures} >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    objects.append(
        b"<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8 "
        b"/Length 1 >>\nstream\n\x00\nendstream"
    )
    return pdf_of(objects)


def pdf_of(objects: Sequence[bytes]) -> bytes:
    """A PDF of these objects, the first being its catalogue."""
    data, places = bytearray(b"%PDF-1.4\n"), []
    for number, content in enumerate(objects, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    data += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(data)


def docx(path: Path, body: str) -> Path:
    """A Word document with this XML in its body."""
    import docx as library
    from docx.oxml import parse_xml

    document = library.Document()
    element = document.element.body
    for child in list(element):
        element.remove(child)
    for child in parse_xml(f'<w:body xmlns:w="{WORD}">{body}</w:body>'):
        element.append(child)
    document.save(str(path))
    return path


def packed(files: Mapping[str, str | bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def epub(
    chapters: Mapping[str, str], spine: Sequence[str] | None = None, *, more: Mapping[str, str | bytes] | None = None
) -> bytes:
    """An epub of these pages by name, read in the order of `spine` (without one: as they are; empty: no spine)."""
    items = "".join(
        f'<item id="i{n}" href="{name}" media-type="application/xhtml+xml"/>' for n, name in enumerate(chapters)
    )
    places = {name: number for number, name in enumerate(chapters)}
    order = "".join(f'<itemref idref="i{places[name]}"/>' for name in (chapters if spine is None else spine))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
        f"<manifest>{items}</manifest>{f'<spine>{order}</spine>' if order else ''}</package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/content.opf"/></rootfiles></container>'
    )
    from urllib.parse import unquote

    pages = {f"OEBPS/{unquote(name)}": content for name, content in chapters.items()}
    files = {"mimetype": "application/epub+zip", "META-INF/container.xml": container, "OEBPS/content.opf": package}
    return packed({**files, **pages, **(more or {})})


def warc(records: Sequence[tuple[str, str, bytes]], *, gzip: bool = True) -> bytes:
    """A web archive of answers: an address, the lines of a head (the first is the status), and what was sent.

    Written by hand: warcio's writer leaves its temporary files open.
    """
    import gzip as packing

    made = [_record("warcinfo", "", b"software: tests\r\n")]
    for address, head, data in records:
        lines = head.replace("\n", "\r\n")
        made.append(_record("response", address, f"HTTP/1.1 {lines}\r\n\r\n".encode() + data))
    return b"".join(packing.compress(record) if gzip else record for record in made)


def _record(kind: str, address: str, block: bytes) -> bytes:
    lines = ["WARC/1.0", f"WARC-Type: {kind}", "WARC-Record-ID: <urn:uuid:1>", "WARC-Date: 2024-01-01T00:00:00Z"]
    lines += [f"WARC-Target-URI: {address}"] if address else []
    lines += ["Content-Type: application/http; msgtype=response", f"Content-Length: {len(block)}", "", ""]
    return "\r\n".join(lines).encode() + block + b"\r\n\r\n"
