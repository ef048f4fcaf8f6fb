"""The chapters of an epub in the order of reading, as text.

Usage: `for part in parts_of_epub(Path("novel.epub")): ...`.

All that a chapter shows is its text: a book has no menus to leave out. The table of contents is skipped. It reads no
picture, and nothing outside the archive.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from common.data.accounting import DAMAGED, ENCRYPTED, NO_TEXT
from common.data.manifest.documents.archives import open_archive, read_member
from common.data.manifest.documents.pages import decode
from common.data.manifest.documents.parts import OPENED, Part, Unreadable, clean, tidy

CONTAINER, LOCKS = "META-INF/container.xml", "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
_UNSEEN = frozenset({"head", "script", "style", "template", "svg", "annotation", "rt", "rp"})
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav",
    "ol", "p", "pre", "section", "table", "tr", "ul",
})  # fmt: skip
_BEFORE = {"br": " ", "td": " | ", "th": " | "}
DEEPEST = 250


class _Item(NamedTuple):
    name: str  # in the archive
    kind: str
    properties: str


def parts_of_epub(path: Path, first: int = 1) -> Iterator[Part]:
    """Yield the chapters of a book from the first that is asked for. Raises Unreadable where none can be found."""
    with open_archive(path) as archive:
        chapters = _chapters(archive)
        locked = _locked(archive)
        found = False
        yield OPENED
        for number, item in enumerate(chapters, start=1):
            if number < first or "nav" in item.properties.split():
                continue
            if item.name in locked:
                found = True
                yield Part(number, reason=ENCRYPTED, detail="is encrypted (DRM). Take a copy without it")
                continue
            try:
                text = clean(chapter_text(decode(read_member(archive, item.name), None, None)))
            except Unreadable as error:
                found = True
                yield Part(number, reason=error.reason, detail=error.detail)
                continue
            if text:
                found = True
                yield Part(number, text)
        if not found and first == 1:
            raise Unreadable(NO_TEXT, "holds no text; pictures of text need OCR")


def _chapters(archive: zipfile.ZipFile) -> list[_Item]:
    """Return the pages of a book: those of its spine, or all of its manifest, or of the archive, where it has none."""
    try:
        package = _package(archive)
    except Unreadable:
        pages = [name for name in archive.namelist() if name.lower().endswith((".xhtml", ".html", ".htm"))]
        if not pages:
            raise
        return [_Item(name, _PAGES[0], "") for name in pages]
    tree = _xml(archive, package)
    home = posixpath.dirname(package)
    names = set(archive.namelist())
    items = {
        str(item.get("id")): _Item(
            _inside(home, str(item.get("href", "")), names), item.get("media-type", ""), item.get("properties", "")
        )
        for item in tree.iter("{*}item")
    }
    spine = [items[ref] for entry in tree.iter("{*}itemref") if (ref := entry.get("idref", "")) in items]
    chapters = [item for item in spine or items.values() if item.kind in _PAGES or not item.kind]
    if not chapters:
        raise Unreadable(DAMAGED, f"lists no chapter in {package}")
    return list(dict.fromkeys(chapters))  # a spine that names one a thousand times


def _package(archive: zipfile.ZipFile) -> str:
    """Return the name of the file that lists what a book is made of."""
    try:
        roots = [str(root.get("full-path") or "") for root in _xml(archive, CONTAINER).iter("{*}rootfile")]
    except Unreadable:
        roots = []
    roots += [name for name in archive.namelist() if name.lower().endswith(".opf")]
    names = set(archive.namelist())
    found = next((root for root in roots if root in names), None)
    if found is None:
        raise Unreadable(DAMAGED, f"is no epub: it has neither {CONTAINER} nor a package file (.opf)")
    return found


def _inside(home: str, link: str, names: set[str]) -> str:
    """Return the name in the archive that a link from a folder of it means; some have blanks in percent."""
    for name in (unquote(link.partition("#")[0]), link.partition("#")[0], link):
        if (place := posixpath.normpath(posixpath.join(home, name))) in names:
            return place
    return posixpath.normpath(posixpath.join(home, unquote(link.partition("#")[0])))


def _locked(archive: zipfile.ZipFile) -> set[str]:
    """Return the names of what is encrypted; fonts that are garbled are among them, and no chapters."""
    if LOCKS not in archive.namelist():
        return set()
    return {unquote(str(found.get("URI"))) for found in _xml(archive, LOCKS).iter("{*}CipherReference")}


def _xml(archive: zipfile.ZipFile, name: str) -> Any:
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, recover=True)
    try:
        tree = etree.fromstring(read_member(archive, name), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise Unreadable(DAMAGED, f"{name} in it is no XML ({error})") from None
    if tree is None:
        raise Unreadable(DAMAGED, f"{name} in it is no XML")
    return tree


def chapter_text(page: str) -> str:
    """Return all that a page of a book shows, its blocks apart by a blank line."""
    from lxml import etree, html

    if not page.strip():
        return ""
    try:
        data = page.encode("utf-8", "replace")
        tree = html.fromstring(data, parser=html.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True))
    except (etree.LxmlError, ValueError) as error:  # ParserError: nothing but comments
        if "empty" in str(error):
            return ""
        raise Unreadable(DAMAGED, f"is no page ({error})") from None
    blocks: list[list[str]] = [[]]
    _gather(tree, blocks, 0)
    texts = (tidy("".join(block)) for block in blocks)
    return "\n\n".join(text for text in texts if text)


def _gather(element: Any, blocks: list[list[str]], depth: int) -> None:
    """Add the text of an element to the last block, and begin a new one where a block begins or ends."""
    if depth > DEEPEST:
        raise Unreadable(DAMAGED, "nests its elements too deep")
    name = element.tag.rpartition("}")[2].rpartition(":")[2].lower() if isinstance(element.tag, str) else ""
    if name in _UNSEEN:
        return
    is_block = name in _BLOCKS
    if is_block:
        blocks.append([])
    if name:  # comments and instructions have a text too
        blocks[-1] += [_BEFORE.get(name, ""), element.text or ""]
    for child in element:
        _gather(child, blocks, depth + 1)
        blocks[-1].append(child.tail or "")
    if is_block:
        blocks.append([])
