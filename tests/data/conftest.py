"""A data folder for manifests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.manifest.manifests import write_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with texts and an exam."""
    write_rows(tmp_path / "texts.jsonl", [{"text": f"Text number {i}.", "body": "b"} for i in range(20)])
    write_rows(tmp_path / "exam.jsonl", [{"question": f"Is it {i}?", "answer": "no"} for i in range(5)])
    return tmp_path
