"""Files that blocks read besides rows: below the data folder, or refused with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.data.data_files import data_file
from common.errors import DataError
from tests.data.blocks.driving import context_of


def test_a_file_below_the_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "lm.bin").write_bytes(b"x")
    assert data_file(context_of(tmp_path, data=tmp_path), "models/lm.bin", "k").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["../out.bin", "link.bin", "folder/../../out.bin"])
def test_a_path_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "out.bin").write_bytes(b"x")
    home = tmp_path / "data"
    (home / "folder").mkdir(parents=True)
    (home / "link.bin").symlink_to(tmp_path / "out.bin")
    with pytest.raises(DataError, match=r"k is .*, which leaves the data folder .* Copy the file into the folder"):
        data_file(context_of(tmp_path, data=home), name, "k")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"k is lm\.bin, and .* has no such file\. Put it there, or correct the name"):
        data_file(context_of(tmp_path, data=tmp_path), "lm.bin", "k")
    with pytest.raises(DataError, match=r"this data has no folder that it could be in"):
        data_file(context_of(tmp_path), "lm.bin", "k")
