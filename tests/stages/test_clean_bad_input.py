"""What is broken in data, or in the machine, while a stage cleans: one clear error or a counted row, and no more."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import random
import resource
import string
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from common.cli.data import show
from common.console import Console
from common.data.cleaned import CleanedRows
from common.data.manifest.files import encoding
from common.data.tokens import TokenCounter
from common.engine.plan import make_plan
from common.errors import RecipeError, StoreError
from common.store.artifacts import Artifact
from tests.data.manifest.documents import makers
from tests.data.manifest.manifests import write_rows
from tests.stages.cleaning import BOOK, CHAT, EXAM, LENGTH, cleaned, made, resolved, state

WHOLE = {"text": "This is a text of the book."}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path)


def dropped(artifact: Artifact) -> dict[str, int]:
    return CleanedRows(artifact.path).counts()["book"].dropped


def shown(artifact: Artifact) -> str:
    stream = io.StringIO()
    show(artifact, Console("quiet", stream), 0, TokenCounter(None), [])
    return stream.getvalue()


def add(folder: Path, line: str) -> None:
    with (folder / "book.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def test_a_line_that_is_too_long_is_counted_with_its_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "LONGEST_LINE", 1000)
    add(folder, json.dumps({"text": "word " * 1000}))
    add(folder, json.dumps(WHOLE))
    artifact = cleaned(resolved(folder, []))
    assert dropped(artifact) == {"line too long": 1, "exam overlap": 1}
    assert "book: dropped first for 'line too long': book.jsonl, line 22: has 1,000 characters or more" in shown(
        artifact
    )


@pytest.mark.long
def test_a_line_of_100_mb_takes_no_more_memory_than_the_longest_that_is_held(folder: Path) -> None:
    add(folder, json.dumps({"text": "word " * 20_000_000}))
    tracemalloc.start()
    artifact = cleaned(resolved(folder))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dropped(artifact)["line too long"] == 1
    assert peak < 220e6


@pytest.mark.slow
def test_a_wrong_type_in_row_10000_is_found_before_a_stage_trains(folder: Path) -> None:
    write_rows(folder / "book.jsonl", [*[WHOLE] * 9_999, {"text": 5}])
    artifact = cleaned(resolved(folder))
    assert dropped(artifact) == {"text is no text": 1}
    assert "book: dropped first for 'text is no text': book.jsonl, line 10000" in shown(artifact)
    write_rows(folder / "book.jsonl", [WHOLE] * 9_999)
    add(folder, "5")
    artifact = cleaned(resolved(folder))
    assert dropped(artifact) == {"no object": 1}
    assert "dropped first for 'no object': book.jsonl, line 10000: holds a number; expected" in shown(artifact)


def cut_gzip(folder: Path) -> dict[str, Any]:
    packed = gzip.compress(random.Random(0).randbytes(3000).hex().encode() + b"\n" + json.dumps(WHOLE).encode())
    (folder / "book.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    return {"path": "book.jsonl.gz"}


def nul(folder: Path) -> dict[str, Any]:
    add(folder, '{"text": "a NUL \0 byte"}')
    return {}


def bomb(folder: Path) -> dict[str, Any]:
    with zipfile.ZipFile(folder / "a.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", bytes(50_000_000))
    return {"path": "a.docx"}


def outside(folder: Path) -> dict[str, Any]:
    (folder.parent / "other.jsonl").write_text(json.dumps(WHOLE))
    return {"path": "../other.jsonl"}


def linked(folder: Path) -> dict[str, Any]:
    (folder.parent / "secret.jsonl").write_text(json.dumps(WHOLE))
    (folder / "link.jsonl").symlink_to(folder.parent / "secret.jsonl")
    return {"path": "link.jsonl"}


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (cut_gzip, r"source 'book': book\.jsonl\.gz, after line 0: the packed file ends too early, as after a broken"),
        (nul, r"book\.jsonl, line 22: not valid JSON: Invalid control character at \(column 17\)\. Repair or remove"),
        (bomb, r"source 'book': a\.docx: unpacks to [\d,]+ times its size, as a zip bomb does"),
        (outside, r"source 'book': path \.\./other\.jsonl leaves the data folder"),
        (linked, r"source 'book': path link\.jsonl is a link that leaves the data folder"),
    ],
)
def test_what_cannot_be_read_is_one_error(
    folder: Path, prepare: Callable[[Path], dict[str, Any]], message: str
) -> None:  # fmt: skip
    with pytest.raises(RecipeError, match=message):
        cleaned(resolved(folder, LENGTH, {**BOOK, **prepare(folder)}, CHAT, EXAM))


def test_broken_and_encrypted_pdfs_are_counted_beside_those_that_can_be_read(folder: Path) -> None:
    import pypdf

    page = "One page with words that are enough"
    (folder / "a.pdf").write_bytes(makers.pdf([page] * 40))
    (folder / "b.pdf").write_bytes(makers.pdf(["x"])[:200])
    locked = pypdf.PdfWriter(clone_from=folder / "a.pdf")
    locked.encrypt("secret")
    locked.write(folder / "c.pdf")
    artifact = cleaned(resolved(folder, LENGTH, {**BOOK, "path": "*.pdf"}, CHAT, EXAM))
    assert dropped(artifact) == {"damaged document": 1, "encrypted": 1}
    assert "book: dropped first for 'encrypted': c.pdf" in shown(artifact)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a disk or with a quota that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_while_cleaning_is_one_error_and_the_same_command_goes_on(folder: Path, workers: str) -> None:
    draw = random.Random(0)
    texts = [" ".join("".join(draw.choices(string.ascii_letters, k=8)) for _ in range(300)) for _ in range(400)]
    write_rows(folder / "book.jsonl", [{"text": text} for text in texts])
    run = resolved(folder, [*LENGTH, "exact"], **{"run.data_workers": workers})
    with full_disk(300_000), pytest.raises(StoreError, match=r"is full .*Nothing half-made is kept"):
        cleaned(run)
    assert state(make_plan(run), "data-cpt") == "missing"
    assert not list((folder / "out" / "artifacts").glob("data-cpt-*"))
    again = cleaned(run)
    assert again.digest == cleaned(resolved(folder, [*LENGTH, "exact"], out=str(folder / "other"))).digest


@pytest.mark.parametrize("failing", [2, 5])
def test_a_disk_that_is_full_at_any_file_leaves_nothing_that_is_trusted(
    folder: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, replace, calls = resolved(folder, [*LENGTH, "exact"]), os.replace, 0

    def full(*paths: Any) -> None:
        nonlocal calls
        calls += "cleaning" in str(paths[1])
        if calls == failing:
            raise OSError(errno.ENOSPC, "No space left on device", str(paths[1]))
        replace(*paths)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match=r"is full"):
        cleaned(run)
    monkeypatch.undo()
    whole = cleaned(resolved(folder, [*LENGTH, "exact"], out=str(folder / "other")))
    assert cleaned(run).digest == whole.digest
    assert CleanedRows(cleaned(run).path).facts["blocks"] == CleanedRows(whole.path).facts["blocks"]
