"""Damaged archives are reported as such, whatever packed them; a lack of memory is no damage."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest

from common.data.manifest.documents.archives import open_archive, read_member
from common.data.manifest.documents.parts import Unreadable

TEXT = random.Random(1).randbytes(2000).hex().encode()


def packed(method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("a.xml", TEXT)
    return stream.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_of_any_byte_is_told_in_one_way(method: int, tmp_path: Path) -> None:
    whole, path, draw = packed(method), tmp_path / "a.epub", random.Random(method)
    told = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[draw.choice([draw.randrange(60), draw.randrange(len(whole)), -draw.randrange(1, 90)])] ^= 0xFF
        path.write_bytes(damaged)
        try:
            with open_archive(path) as archive:
                read_member(archive, "a.xml")
        except Unreadable:
            told += 1
    assert told > 75
    path.write_bytes(whole)
    with open_archive(path) as archive:
        assert read_member(archive, "a.xml") == TEXT


def test_a_lack_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> bytes:
        raise MemoryError

    (tmp_path / "a.epub").write_bytes(packed(zipfile.ZIP_DEFLATED))
    monkeypatch.setattr(zipfile.ZipFile, "read", full)
    with open_archive(tmp_path / "a.epub") as archive, pytest.raises(MemoryError):
        read_member(archive, "a.xml")
