"""A manifest counts only in the form that the store writes it in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.store.manifest import MANIFEST, read_manifest

FILE = {"size": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "content",
    [
        {"schema": 99, "files": {}},
        {"schema": 1},
        {"schema": 1, "files": []},
        {"schema": 1, "files": {"a": 5}},
        {"schema": 1, "files": {"a": {"size": "1", "sha256": "0"}}},
        {"schema": 1, "files": {"../a": FILE}},
        {"schema": 1, "files": {"/etc/passwd": FILE}},
        {"schema": 1, "files": {"": FILE}},
        {"schema": 1, "files": {}, "inputs": ["base"]},
        {"schema": 1, "files": {}, "inputs": {"base": {}}},
        [],
        5,
    ],
)
def test_what_has_not_its_form_is_no_manifest(tmp_path: Path, content: Any) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    assert read_manifest(tmp_path) is None


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_cannot_be_read_is_no_manifest(tmp_path: Path, text: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(text)
    assert read_manifest(tmp_path) is None


def test_the_form_of_a_manifest(tmp_path: Path) -> None:
    content = {"schema": 1, "files": {"a/b.json": FILE}, "inputs": {"base": {"stage": "base", "fingerprint": "0"}}}
    (tmp_path / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    assert read_manifest(tmp_path) == content
