"""Packed files give the rows of plain ones; what is cut off, damaged or wrongly named says so."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest

from common.data.manifest.readers import Reading, SourceFile, read_file
from common.errors import DataError
from tests.data.manifest.files.reading import read

LINES = "".join(f'{{"text": "Row {number} of the tide table, {number * 7919 % 10007}."}}\n' for number in range(20_000))


def zstandard(data: bytes) -> bytes:
    return bytes(pyarrow.compress(data, codec="zstd", asbytes=True))


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard
}  # fmt: skip


@pytest.mark.parametrize("packing", PACK)
def test_every_packing_gives_the_rows_and_tells_how_far_it_is(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"a.jsonl{packing}"
    path.write_bytes(PACK[packing](LINES.encode()))
    read_so_far: list[float] = []
    records = list(read_file(SourceFile(path, path.name, read_so_far.append), Reading()))
    assert len(records) == 20_000
    assert records[-1].where == f"a.jsonl{packing}, line 20000"
    size = path.stat().st_size
    assert read_so_far[-1] == size
    if packing == ".gz":  # the others unpack large blocks at once
        assert read_so_far[1000] / size == pytest.approx(0.05, abs=0.1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text\nx\n"),
        ("a.tsv", "text\tb\nx\ty\n"),
        ("a.json", '[{"text": "x"}]'),
        ("a.txt", "x"),
        ("a.md", "x"),
    ],
)
def test_every_text_format_may_be_packed(tmp_path: Path, name: str, content: str) -> None:
    assert read(tmp_path, f"{name}.gz", gzip.compress(content.encode())).values[0]["text"] == "x"


@pytest.mark.parametrize("packing", PACK)
def test_several_packed_parts_are_one_file(tmp_path: Path, packing: str) -> None:
    part = PACK[packing](b'{"a": 1}\n')
    assert read(tmp_path, f"a.jsonl{packing}", part + part).values == [{"a": 1}] * 2


@pytest.mark.parametrize("packing", PACK)
def test_a_file_that_was_cut_off_names_the_row_reached(tmp_path: Path, packing: str) -> None:
    data = PACK[packing](LINES.encode())
    message = rf"^a\.jsonl\{packing}, after line \d+: the packed file ends too early"
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, f"a.jsonl{packing}", data[: len(data) * 2 // 3])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz"])
def test_a_damaged_file_is_told(tmp_path: Path, packing: str) -> None:
    data = bytearray(PACK[packing](LINES.encode()))
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    with pytest.raises(DataError, match=r"line \d+: (the packed file is damaged|not valid JSON|.*not UTF-8)"):
        read(tmp_path, f"a.jsonl{packing}", bytes(data))


def test_a_name_that_lies_is_told(tmp_path: Path) -> None:
    found = read(tmp_path, "a.jsonl", gzip.compress(b'{"a": 1}'))
    assert (found.values, found.told) == (
        [{"a": 1}], ["a.jsonl is a .gz file, whatever its name says, and is unpacked as one"]
    )  # fmt: skip
    found = read(tmp_path, "b.jsonl.gz", '{"a": 1}')
    assert (found.values, found.told) == (
        [{"a": 1}], ["b.jsonl.gz is not packed, whatever its name says, and is read as it is"]
    )  # fmt: skip
    assert read(tmp_path, "c.jsonl.gz", zstandard(b'{"a": 1}')).told[0].startswith("c.jsonl.gz is a .zst file")
    with pytest.raises(DataError, match=r"d\.jsonl\.gz: is no \.gz file, nor text\. Download or pack it again"):
        read(tmp_path, "d.jsonl.gz", b"\x01\x02\x03\x04")


def test_a_text_that_begins_as_bzip2_does(tmp_path: Path) -> None:
    for text in ("BZh is a bus line.", "BZh9 too"):
        found = read(tmp_path, "a.txt", text)
        assert ([value["text"] for value in found.values], found.told) == ([text], [])
    assert read(tmp_path, "a.txt", bz2.compress(b"")).told == [
        "a.txt is a .bz2 file, whatever its name says, and is unpacked as one"
    ]
