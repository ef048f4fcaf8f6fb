"""The text of a PDF, page by page: by pypdf, or with its layout (columns, tables, headings) by docling.

Usage: `for part in parts_of_pdf(Path("report.pdf")): ...`; `parts_by_docling(Path("report.pdf"))`.

It reads the text that a PDF holds. A scan holds pictures alone: it is reported and counted, and OCR is for others.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.data.accounting import BLANK_PAGE, DAMAGED, ENCRYPTED, NO_TEXT, TOO_LARGE, UNREADABLE_FONT
from common.data.manifest.documents.parts import OPENED, Part, Unreadable, clean
from common.errors import first_line
from common.system.files import open_regular

MOST_PAGES = 100_000
_ODD = 0.3  # share of characters that are none of a language, above which a font cannot be read
_SCAN = "has no text layer, as a scan. Run OCR over it, such as ocrmypdf"
_LOCKED = (
    "is encrypted and needs a password. Save a copy without one, as with qpdf --decrypt --password=… in.pdf out.pdf"
)


def parts_of_pdf(path: Path, first: int = 1) -> Iterator[Part]:
    """Yield the pages of a PDF from the first that is asked for; blank ones are skipped. Raises Unreadable."""
    import pypdf

    with open_regular(path) as stream:
        if b"%PDF-" not in stream.read(1024):
            raise Unreadable(DAMAGED, "is no PDF. Download or copy it again")
        stream.seek(0)
        try:
            reader = pypdf.PdfReader(stream, strict=False)
            _unlock(reader)
            count = len(reader.pages)
        except (Unreadable, MemoryError):
            raise
        except Exception as error:  # on damaged files pypdf raises whatever Python does
            raise Unreadable(DAMAGED, f"is damaged ({_told(error)}). Download or copy it again") from error
        if count > MOST_PAGES:
            raise Unreadable(TOO_LARGE, f"has {count:,} pages; {MOST_PAGES:,} are the most that is read. Split it")
        yield OPENED
        yield from _pages(reader, count, first)


def _unlock(reader: Any) -> None:
    """Open a PDF that is encrypted without a password, as those are that only forbid printing. Raises Unreadable."""
    if not reader.is_encrypted:
        return
    try:
        if reader.decrypt(""):
            return
    except MemoryError:
        raise
    except Exception as error:
        if type(error).__name__ == "DependencyError":
            what = "is encrypted with AES, which pypdf reads with the package cryptography: pip install cryptography"
            raise Unreadable(ENCRYPTED, what) from error
        raise Unreadable(ENCRYPTED, f"{_LOCKED} ({_told(error)})") from error
    raise Unreadable(ENCRYPTED, _LOCKED)


def _pages(reader: Any, count: int, first: int) -> Iterator[Part]:
    """Yield the pages. That some have no text shows once one has; where none has, the document is a scan."""
    without: list[Part] = []
    found = first > 1
    for number in range(first, count + 1):
        try:
            page = reader.pages[number - 1]
            text = clean(page.extract_text() or "").strip()
            part = Part(number, text) if text else _textless(number, page)
        except Unreadable as error:
            part = Part(number, reason=error.reason, detail=error.detail)
        except MemoryError:
            raise
        except Exception as error:  # as above
            part = Part(number, reason=DAMAGED, detail=f"is damaged ({_told(error)})")
        if part is None:
            continue
        if part.text and _is_odd(part.text):
            what = "has a font that does not say which letters it shows. Run OCR over it, such as ocrmypdf --force-ocr"
            part = Part(number, reason=UNREADABLE_FONT, detail=what)
        if part.reason == BLANK_PAGE and not found:
            without.append(part)
            continue
        found = True
        yield from without
        without.clear()
        yield part
    if not found:
        raise Unreadable(NO_TEXT, _SCAN if without else "has no page with text")


def _textless(number: int, page: Any) -> Part | None:
    """Return what a page without text is: one of pictures, or None for a blank one."""
    resources = page.get("/Resources")
    resources = resources.get_object() if resources is not None else {}
    pictures = resources.get("/XObject") if hasattr(resources, "get") else None
    return Part(number, reason=BLANK_PAGE, detail="holds pictures and no text") if pictures else None


def _is_odd(text: str) -> bool:
    """Whether so many characters are replacements, of private use, or names of glyphs that nobody can read it."""
    letters = [letter for letter in text if not letter.isspace()]
    odd = sum(letter == "\ufffd" or "\ue000" <= letter <= "\uf8ff" for letter in letters)
    odd += sum(
        len(word) for word in text.split() if word.startswith("/") and word[1:2].isalpha() and word[-1].isdigit()
    )
    return odd > _ODD * len(letters)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)[:120]}"


def parts_by_docling(path: Path, first: int = 1) -> Iterator[Part]:
    """Yield the pages of a PDF as docling reads them, in Markdown. Raises Unreadable."""
    from docling.document_converter import DocumentConverter

    with open_regular(path):
        pass
    try:
        done = DocumentConverter().convert(str(path), raises_on_error=True, max_num_pages=MOST_PAGES)
    except MemoryError:
        raise
    except Exception as error:  # its errors wrap those of its backends
        raise Unreadable(DAMAGED, f"cannot be read by docling ({_told(error)})") from error
    found = first > 1
    for number in sorted(done.document.pages):
        text = clean(done.document.export_to_markdown(page_no=number)).strip()
        if number >= first and text:
            found = True
            yield Part(number, text)
    if not found:
        raise Unreadable(NO_TEXT, _SCAN)
