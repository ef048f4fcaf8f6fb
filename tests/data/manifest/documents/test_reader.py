"""Documents give rows of their text; what cannot be read is counted, and costs itself alone."""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("trafilatura")
pytest.importorskip("pypdf")
pytest.importorskip("docx")
pytest.importorskip("warcio")

import pypdf

from common.data.manifest.documents import reader, workers
from common.data.manifest.manifest import load_manifest
from common.errors import DataError
from tests.data.manifest.documents import makers
from tests.data.manifest.documents.makers import PROSE, page
from tests.data.manifest.files.reading import Found, read

HTML = "200 OK\nContent-Type: text/html; charset=utf-8"
RUSSIAN = "Сердце качает кровь по всему телу, и клапаны не дают ей течь назад. " * 3
MENU = page("<ul><li><a href=/>Home</a><li><a href=/b>About us</a></ul>")


def texts(found: Found) -> list[str]:
    return [value["text"] for value in found.values]


def places(found: Found) -> list[str]:
    return [record.where for record in found.records]


def test_a_page_gives_its_main_text(tmp_path: Path) -> None:
    found = read(tmp_path, "a.html", makers.article())
    assert texts(found) == ["\n\n".join(("Murmurs", *PROSE))]
    assert places(found) == ["a.html, paragraph 1"]
    assert texts(read(tmp_path, "a.htm.gz", gzip.compress(makers.article().encode()))) == texts(found)
    lines = read(tmp_path, "a.html", makers.article(), unit="line")
    assert (texts(lines), places(lines)[1]) == (["Murmurs", *PROSE], "a.html, line 3")


def test_lists_and_tables_stay_together(tmp_path: Path) -> None:
    items = "".join(f"<li>{text}</li>" for text in PROSE)
    table = "<table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>"
    body = f"<article><p>{PROSE[0]}</p><ul>{items}</ul>{table}<p>{PROSE[1]}</p></article>"
    (text,) = texts(read(tmp_path, "a.html", page(body), unit="file"))
    assert "\n".join(f"- {item}" for item in PROSE) in text
    assert "| a | b |\n| c | d |" in text


@pytest.mark.parametrize(
    ("data", "reading"),
    [
        (f'<?xml version="1.0" encoding="windows-1251"?><html><p>{RUSSIAN}</p></html>'.encode("cp1251"), {}),
        (page(f"<p>{RUSSIAN}</p>", '<meta charset="windows-1251">').encode("cp1251"), {}),
        (page(f"<p>{RUSSIAN}</p>").encode("cp1251"), {"encoding": "cp1251"}),
        (page(f"<p>{RUSSIAN}</p>").encode("utf-16"), {}),
        (page(f"<p>{RUSSIAN}</p>", '<meta charset="nonsense">').encode(), {}),
    ],
)  # fmt: skip
def test_the_encoding_of_a_page(tmp_path: Path, data: bytes, reading: dict[str, str]) -> None:
    assert texts(read(tmp_path, "a.xhtml", data, **reading)) == [RUSSIAN.strip()]


@pytest.mark.parametrize(
    ("name", "data", "reason", "detail"),
    [
        ("a.html", b"", "damaged document", "a.html: is empty"),
        ("a.html", b"no tag", "not HTML", "a.html: holds no tag"),
        ("a.html", page("").encode(), "no main text", "besides menus"),
        ("a.html", MENU.encode(), "no main text", "besides menus"),
        ("a.html", page(f"<p>{RUSSIAN}</p>").encode("cp1251"), "encoding not known", "Name it with encoding:"),
        ("a.html.gz", gzip.compress(makers.article().encode())[:-30], "damaged document", "ends too early"),
        ("a.pdf", b"text", "damaged document", "a.pdf: is no PDF"),
        ("a.pdf", makers.pdf(["x"])[:60], "damaged document", "a.pdf: is damaged"),
        ("a.pdf", makers.pdf([None, None]), "no text", "a.pdf: has no text layer, as a scan. Run OCR"),
        ("a.docx", b"PK", "damaged document", "a.docx: is no archive"),
        ("a.docx", makers.packed({"a": "b"}), "damaged document", "is no Word document"),
        ("a.docx", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), "encrypted", "Save it again without a password"),
        ("a.docx", makers.packed({"a": bytes(2**26)}), "too large a document", "as a zip bomb does"),
        ("a.epub", makers.packed({"a": bytes(2**26)}), "too large a document", "as a zip bomb does"),
        ("a.epub", makers.packed({"a.txt": "b"}), "damaged document", "is no epub"),
        ("a.epub", makers.epub({"a.xhtml": page("<img src='a.png'>")}), "no text", "need OCR"),
        ("a.warc", b"nonsense\n", "damaged document", "a.warc, record 1: is no record of a WARC file"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_counted(tmp_path: Path, name: str, data: bytes, reason: str, detail: str) -> None:
    found = read(tmp_path, name, data)
    assert found.reasons == [reason]
    assert detail in found.flaws[0]


def test_pages_of_a_pdf_are_places(tmp_path: Path) -> None:
    found = read(tmp_path, "a.pdf", makers.pdf(["One (1)\nline", None, "", "Four"]))
    assert places(found) == ["a.pdf, page 1", "a.pdf, page 2", "a.pdf, page 4"]
    assert (texts(found), found.reasons) == (["One (1)\nline", "Four"], ["a page without text"])
    assert texts(read(tmp_path, "a.pdf", makers.pdf(["One", "Two"]), unit="file")) == ["One\n\nTwo"]


@pytest.mark.parametrize(("password", "expected"), [("", ["x"]), ("pw", [])])
def test_an_encrypted_pdf(tmp_path: Path, password: str, expected: list[str]) -> None:
    writer, stream = pypdf.PdfWriter(clone_from=io.BytesIO(makers.pdf(["x"]))), io.BytesIO()
    writer.encrypt(password, "owner", algorithm="RC4-128")
    writer.write(stream)
    found = read(tmp_path, "a.pdf", stream.getvalue())
    assert texts(found) == expected
    assert found.flaws == [] or found.flaws[0].startswith("a.pdf: is encrypted and needs a password. Save a copy")


def test_one_page_that_loops_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is the system's, so that it also ends what never returns to Python."""
    monkeypatch.setattr(workers, "SECONDS", 1)
    code = tmp_path / "sitecustomize.py"
    code.write_text(
        "import common.data.manifest.documents.worker as w; w.SECONDS = 1\n"
        "import pypdf._page as p; old = p.PageObject.extract_text\n"
        "def slow(page, *a, **k):\n"
        "    text = old(page, *a, **k)\n"
        "    while 'loop' in text: pass\n"
        "    if 'crash' in text: __import__('os').abort()\n"
        "    if 'memory' in text: bytearray(2**40)\n"
        "    return text\n"
        "p.PageObject.extract_text = slow\n"
    )
    workers.close_all()
    path = os.pathsep.join([str(tmp_path), str(Path(workers.__file__).parents[4]), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    found = read(tmp_path, "a.pdf", makers.pdf(["one", "loop", "three", "crash", "five"]))
    assert texts(found) == ["one", "three", "five"]
    assert found.reasons == ["too slow a document", "damaged document"]
    assert "page 2: takes more than 1 seconds of the processor" in found.flaws[0]
    assert read(tmp_path, "a.pdf", makers.pdf(["one", "memory", "three"])).reasons == ["too large a document"]
    workers.close_all()


def test_documents_that_are_read_by_turns_do_not_mix(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.pdf").write_bytes(makers.pdf([f"{name}{number}" for number in range(3)]))
    asked = [{"format": ".pdf", "path": str(tmp_path / f"{name}.pdf")} for name in "ab"]
    pairs = zip(*map(workers.read_parts, asked), strict=True)
    assert [(one.text, two.text) for one, two in pairs] == [("a0", "b0"), ("a1", "b1"), ("a2", "b2")]
    parts = workers.read_parts(asked[0])
    assert next(parts).text == "a0"
    parts.close()  # type: ignore[attr-defined]  # a generator; its process is used again, from the start
    assert [part.text for part in workers.read_parts(asked[1])] == ["b0", "b1", "b2"]


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def test_a_word_document_with_tables_and_tracked_changes(tmp_path: Path) -> None:
    changed = (
        '<w:p><w:r><w:t xml:space="preserve">kept </w:t></w:r><w:ins w:id="1" w:author="x"><w:r><w:t>new</w:t></w:r>'
        '</w:ins><w:del w:id="2" w:author="x"><w:r><w:delText>old</w:delText></w:r></w:del>'
        '<w:moveFrom w:id="3" w:author="x"><w:r><w:t>moved</w:t></w:r></w:moveFrom></w:p>'
    )
    table = f"<w:tbl><w:tr><w:tc>{paragraph('a')}</w:tc><w:tc>{paragraph('b')}{paragraph('c')}</w:tc></w:tr></w:tbl>"
    control = f"<w:sdt><w:sdtContent>{paragraph('control')}</w:sdtContent></w:sdt>"
    found = Found(makers.docx(tmp_path / "a.docx", paragraph("One") + changed + table + control))
    assert texts(found) == ["One\n\nkept new\n\n| a | b c |\n\ncontrol"]
    assert Found(makers.docx(tmp_path / "b.docx", "")).reasons == ["no text"]


def test_chapters_of_an_epub_in_the_order_of_reading(tmp_path: Path) -> None:
    chapters = {f"c%20{name}.xhtml": page(f"<h1>{name}</h1><p>Of <i>{name}</i>.</p>") for name in ("a", "b")}
    found = read(tmp_path, "a.epub", makers.epub(chapters, [*chapters][::-1]))
    assert texts(found) == ["b\n\nOf b.", "a\n\nOf a."]
    assert places(found) == ["a.epub, chapter 1", "a.epub, chapter 2"]
    assert texts(read(tmp_path, "a.epub", makers.epub(chapters, []), unit="file")) == ["a\n\nOf a.\n\nb\n\nOf b."]


def test_an_epub_that_is_locked_or_lacks_a_chapter(tmp_path: Path) -> None:
    chapters = {name: page(f"<p>{name}</p>") for name in ("a.xhtml", "b.xhtml", "c.xhtml")}
    lock = (
        '<encryption xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:CipherReference URI="OEBPS/a.xhtml"/></encryption>'
    )
    whole = makers.epub(chapters, more={"META-INF/encryption.xml": lock})
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if "b.xhtml" not in name}
    found = read(tmp_path, "a.epub", makers.packed(kept))
    assert (texts(found), found.reasons) == (["c.xhtml"], ["encrypted", "damaged document"])
    assert "chapter 2: lacks OEBPS/b.xhtml" in found.flaws[1]


@pytest.mark.parametrize("packing", ["", ".gz", "whole.gz"])
def test_a_web_archive_gives_its_pages_and_counts_the_others(tmp_path: Path, packing: str) -> None:
    body = makers.article().encode()
    bomb = gzip.compress(bytes(2**25))
    records = [
        ("http://a/1", HTML, body), ("http://a/2?secret=1", "200 OK\nContent-Type: image/png", b"\x89PNG"),
        ("http://a/3", "404 No\nContent-Type: text/html", body), ("http://a/4", f"{HTML}\nContent-Encoding: zz", b"x"),
        ("http://a/5", f"{HTML}\nContent-Encoding: gzip", bomb), ("http://a/6", HTML, b"\x00\xff"),
        ("http://a/7", f"{HTML}\nContent-Encoding: gzip", gzip.compress(body)),
    ]  # fmt: skip
    data = makers.warc(records, gzip=packing == ".gz")
    name = f"a.warc{packing[-3:]}"
    found = read(tmp_path, name, gzip.compress(data) if packing == "whole.gz" else data)
    assert texts(found) == ["\n\n".join(("Murmurs", *PROSE))] * 2
    assert places(found)[0] == f"{name}, record 2"  # the first is the archive's own
    assert found.reasons == [
        "not HTML", "no page was given", "damaged document", "too large a document", "encoding not known",
    ] or found.reasons[:4] == ["not HTML", "no page was given", "damaged document", "too large a document"]  # fmt: skip
    assert not any("secret" in flaw for flaw in found.flaws)
    cut = read(tmp_path, name, data[: len(data) * 2 // 3])
    assert cut.reasons[-1] == "damaged document"


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reader._PACKAGES, ".pdf", ("no_such_package",))
    with pytest.raises(
        DataError, match=r"a\.pdf: reading \.pdf needs no_such_package, .* 'domain-recipes\[documents\]'"
    ):
        read(tmp_path, "a.pdf", makers.pdf(["x"]))
    if importlib.util.find_spec("docling") is None:
        with pytest.raises(DataError, match=r"PDF with docling needs docling.*'domain-recipes\[docling\]'"):
            read(tmp_path, "a.pdf", makers.pdf(["x"]), pdf="docling")


def test_one_bad_document_does_not_stop_a_source(tmp_path: Path) -> None:
    for name, pages in (("a", [None]), ("b", [PROSE[0], PROSE[1]])):
        (tmp_path / f"{name}.pdf").write_bytes(makers.pdf(pages))
    source = "{id: reports, role: cpt, licence: mit, path: '*.pdf'}"
    (tmp_path / "data.yaml").write_text(f"title: T\nsources: [{source}]\n")
    corpus = load_manifest(tmp_path / "data.yaml", None)
    assert [row["text"] for row in corpus.rows("cpt")] == [PROSE[0], PROSE[1]]
    assert corpus.counts("cpt")["reports"].dropped == {"no text": 1}
    assert corpus.identity(["cpt"])[0]["readers"] == {"pypdf": pypdf.__version__}
    (tmp_path / "b.pdf").unlink()
    with pytest.raises(DataError, match=r"source 'reports': a\.pdf: has no text layer, as a scan\. Run OCR"):
        load_manifest(tmp_path / "data.yaml", None)


FORMATS: dict[str, Callable[[Path], bytes]] = {
    ".html": lambda _: makers.article().encode(),
    ".pdf": lambda _: makers.pdf(["One page", "Another"]),
    ".docx": lambda folder: makers.docx(folder / "made.docx", paragraph("One") * 20).read_bytes(),
    ".epub": lambda _: makers.epub({"a.xhtml": page("<p>One.</p>"), "b.xhtml": page("<p>Two.</p>")}),
    ".warc": lambda _: makers.warc([("http://a/1", HTML, makers.article().encode())] * 3, gzip=False),
    ".warc.gz": lambda _: makers.warc([("http://a/1", HTML, makers.article().encode())] * 3),
}


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_files_give_rows_or_flaws_and_no_traceback(tmp_path: Path, form: str) -> None:
    import random

    whole, chance = FORMATS[form](tmp_path), random.Random(7)
    for _ in range(int(os.environ.get("DAMAGED_FILES", "12"))):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 3, 20))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        found = read(tmp_path, f"a{form}", bytes(data) or b"\0")
        assert found.records, "what gives no row says why"
        assert not any("\n" in flaw for flaw in found.flaws)
