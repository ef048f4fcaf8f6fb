"""YAML files are read as they are meant, and their mistakes are placed."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config.yaml import read_manifest, read_yaml
from common.errors import DataError


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "data.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_words_and_numbers_keep_their_meaning(tmp_path: Path) -> None:
    text = "choices: [yes, no, maybe]\nrates: [1e-5, 0.5, 2, -1.5e3, .5, 1.0]\n"
    text += "on: true\nnothing:\nid: 1.2.3\nday: off\n"
    assert read_yaml(write(tmp_path, text)) == {
        "choices": ["yes", "no", "maybe"],
        "rates": [1e-5, 0.5, 2, -1500.0, 0.5, 1.0],
        "on": True,
        "nothing": None,
        "id": "1.2.3",
        "day": "off",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: x\nsources: [a\n", r"data\.yaml, line 3, column 1: not valid YAML"),
        ("title: x\ntitle: y\n", r"data\.yaml, line 2, column 1: not valid YAML: key 'title' is given twice"),
        ("? [a]\n: b\n", r"line 1, column 3: not valid YAML: a key is a list"),
        (b"title: \xff\n", r"byte 7 is not UTF-8"),
        ("title: \x00", r"not valid YAML"),
    ],
)
def test_mistakes_are_placed(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_yaml(write(tmp_path, text))


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.yaml: no such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(DataError, match=r"cannot be read: it is a folder, not a regular file"):
        read_yaml(tmp_path)


def test_what_cannot_be_a_manifest_is_told_with_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "faq.jsonl").write_text('{"a": 1}\n{"a": 2}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"^data=.*faq\.jsonl is a \.jsonl file\. Expected a manifest: a \.yaml file"):
        read_manifest(tmp_path / "faq.jsonl")
    with pytest.raises(DataError, match=r"^data=.* is a folder\. Expected a manifest"):
        read_manifest(tmp_path)
