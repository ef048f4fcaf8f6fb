"""The text of a .docx document in its order: paragraphs, lists and tables, by python-docx.

Usage: `for part in parts_of_docx(Path("report.docx")): ...`.

Tracked changes are read as accepted: what was inserted is text, what was deleted is not. Text boxes, content controls
and links are read; comments, footnotes, headers and footers are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.data.accounting import DAMAGED, NO_TEXT
from common.data.manifest.documents.archives import open_archive
from common.data.manifest.documents.parts import Part, Unreadable, clean, tidy

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"  # repeats what comes before it
_GONE = frozenset({f"{_WORD}{name}" for name in ("del", "moveFrom", "instrText", "pPr", "rPr", "tblPr", "trPr")})
_BREAKS = frozenset({f"{_WORD}br", f"{_WORD}cr"})
_PARAGRAPH, _TABLE, _TEXT, _TAB = f"{_WORD}p", f"{_WORD}tbl", f"{_WORD}t", f"{_WORD}tab"
DEEPEST = 200  # elements within elements


def parts_of_docx(path: Path) -> Iterator[Part]:
    """Yield the one part of a document, its paragraphs apart by a blank line. Raises Unreadable."""
    import docx
    from docx.opc.exceptions import OpcError

    with open_archive(path):
        pass
    try:
        body = docx.Document(str(path)).element.body
    except (OpcError, KeyError, ValueError, AttributeError, SyntaxError) as error:  # SyntaxError: of lxml
        raise Unreadable(DAMAGED, f"is no Word document ({_first(error)}). Save it again as .docx") from error
    text = clean("\n\n".join(_blocks(body, 0) if body is not None else ()))
    if not text.strip():
        raise Unreadable(NO_TEXT, "holds no text; pictures of text need OCR")
    yield Part(1, text)


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _blocks(element: Any, depth: int) -> Iterator[str]:
    """Yield the paragraphs and tables below an element."""
    if depth > DEEPEST:
        raise Unreadable(DAMAGED, "nests its elements too deep")
    for child in element:
        if child.tag in _GONE or child.tag == _FALLBACK:
            continue
        if child.tag == _PARAGRAPH:
            boxes: list[str] = []
            text = _line(child, boxes, depth + 1)
            yield from (block for block in (text, *boxes) if block)
        elif child.tag == _TABLE:
            if rows := "\n".join(_rows(child, depth + 1)):
                yield rows
        else:
            yield from _blocks(child, depth + 1)


def _line(paragraph: Any, boxes: list[str], depth: int) -> str:
    """Return a paragraph's own text; paragraphs of a text box within it go to `boxes`."""
    pieces: list[str] = []

    def walk(element: Any, depth: int) -> None:
        if depth > DEEPEST:
            raise Unreadable(DAMAGED, "nests its elements too deep")
        for child in element:
            if child.tag in (_PARAGRAPH, _TABLE):
                boxes.extend(_blocks([child], depth + 1))
            elif child.tag == _TEXT:
                pieces.append(child.text or "")
            elif child.tag == _TAB:
                pieces.append("\t")
            elif child.tag in _BREAKS:
                pieces.append("\n")
            elif child.tag not in _GONE and child.tag != _FALLBACK:
                walk(child, depth + 1)

    walk(paragraph, depth)
    return "\n".join(stripped for line in "".join(pieces).split("\n") if (stripped := line.strip()))


def _rows(table: Any, depth: int) -> Iterator[str]:
    """Yield the rows of a table as lines, its cells between bars."""
    for row in table.iter(f"{_WORD}tr"):
        if next(row.iterancestors(_TABLE)) is not table:  # of a table in a cell, whose text is the cell's
            continue
        own = (cell for cell in row.iter(f"{_WORD}tc") if next(cell.iterancestors(f"{_WORD}tr")) is row)
        cells = [tidy(" ".join(_blocks(cell, depth + 1))) for cell in own]
        if any(cells):
            yield f"| {' | '.join(cells)} |"
