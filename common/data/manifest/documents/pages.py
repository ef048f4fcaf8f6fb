"""The main text of an HTML page: menus, headers, footers and advertisements left out, by trafilatura.

Usage: `for part in parts_of_page(data, encoding=None, declared="utf-8"): ...`; `text = decode(data, None, None)`.

It fetches nothing: no link, frame or picture is followed, and no script runs.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Iterator
from typing import Any

from common.data.accounting import NO_MAIN_TEXT, NOT_HTML
from common.data.manifest.documents.parts import Part, Unreadable, clean
from common.data.manifest.files.encoding import FALLBACK, is_foreign

LOOKED_AT = 4096  # bytes of its start in which a page says its encoding
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_WIDE = {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}  # how a page without a mark begins with a tag
_DECLARED = re.compile(
    rb"""<\?xml[^>]*\bencoding\s*=\s*["']([\w.:-]+)|<meta\b[^>]*\bcharset\s*=\s*["']?\s*([\w.:-]+)""", re.I
)
_XML_DECLARATION = re.compile(r"\s*<\?xml\b[^>]*\?>")
_TAG = re.compile(r"<(?:!doctype\s+html|/?[a-z][a-z0-9:]*)\b[^<>]*>", re.I)
# What browsers read where a page says this (the WHATWG's encoding standard), as far as Python reads another.
_MEANT = {
    "iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254", "gb2312": "gb18030", "gbk": "gb18030",
    "tis-620": "cp874", "euc_kr": "cp949", "shift_jis": "cp932", "utf-16": "utf-8", "utf-16-le": "utf-8",
    "utf-16-be": "utf-8",
}  # fmt: skip
_FEWEST_OUTSIDE = 0.2  # share of a text's characters that must not be in links, or it is a list of links
_LIST_LINE = re.compile(r"(?:- |\| )")


def parts_of_page(data: bytes, encoding: str | None = None, declared: str | None = None) -> Iterator[Part]:
    """Yield the one part of a page. `encoding` is named by the source, `declared` by who sent the page.

    Raises Unreadable: not HTML, an encoding that is not known, no main text.
    """
    text = decode(data, encoding, declared)
    if not _TAG.search(text):
        raise Unreadable(NOT_HTML, "holds no tag of HTML")
    yield Part(1, main_text(text))


def decode(data: bytes, encoding: str | None, declared: str | None) -> str:
    """Return a page as text. Its mark comes first, then what the source, the sender and the page itself say."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    if encoding is not None:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            raise Unreadable(f"not {encoding}", f"byte {error.start + 1} is not {encoding}") from None
    if (wide := _WIDE.get(data[:2])) is not None:
        return data.decode(wide, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    found = _DECLARED.search(data[:LOOKED_AT])
    labels = [declared] if declared else []
    labels += [label.decode("ascii") for label in found.groups() if label] if found else []
    for label in labels:
        if (known := _known(label)) is not None:
            return data.decode(known, "replace")  # a page may hold one damaged character
    text = data.decode(FALLBACK, "replace")
    if is_foreign(text):
        raise Unreadable("encoding not known", "is not UTF-8 and does not say what it is. Name it with encoding:")
    return text


def _known(label: str) -> str | None:
    """Return the encoding that a page's label means; None for one that cannot be."""
    try:
        name = codecs.lookup(label).name
        "".encode(name)
    except (LookupError, ValueError):
        return None
    return _MEANT.get(name, name)


def main_text(page: str) -> str:
    """Return the main text of a page, its paragraphs apart by a blank line. Raises Unreadable."""
    import trafilatura

    tree = trafilatura.load_html(_XML_DECLARATION.sub("", page.replace("\0", ""), count=1))
    if tree is None:
        raise Unreadable(NOT_HTML, "is no HTML that can be parsed")
    found = trafilatura.bare_extraction(tree, include_comments=False, with_metadata=False)
    text = clean(getattr(found, "text", None) or "").strip()
    if not text or _is_links(text, tree):
        raise Unreadable(NO_MAIN_TEXT, "has no text besides menus and links")
    return _apart(text)


def _is_links(text: str, tree: Any) -> bool:
    """Whether nearly all of a text is that of links."""
    linked = {_squeezed("".join(link.itertext())) for link in tree.iter("a")}
    lines = [_squeezed(line.removeprefix("- ")) for line in text.splitlines()]
    outside = sum(len(line) for line in lines if line not in linked)
    return bool(linked) and outside < _FEWEST_OUTSIDE * sum(map(len, lines))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _apart(text: str) -> str:
    """Put a blank line between paragraphs, each of which is a line; items of lists and rows of tables stay together."""
    lines = [line.rstrip() for line in text.split("\n")]
    joined = lines[:1]
    for before, line in itertools.pairwise(lines):
        together = _LIST_LINE.match(before) and _LIST_LINE.match(line)
        joined += [line] if together or line.startswith(" ") else ["", line]
    return "\n".join(joined)
