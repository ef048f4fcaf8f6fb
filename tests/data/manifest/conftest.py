"""A data folder with texts, for the tests of manifests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.manifest.manifests import write_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path / "texts.jsonl", [{"text": f"Text {i}."} for i in range(200)])
    return tmp_path
