import os
import socket
from pathlib import Path

import pytest

from common.config.yaml import read_yaml
from common.data.manifest.files.locate import locate
from common.errors import DataError
from common.models.local import locate as locate_checkpoint
from common.store.manifest import damage, read_mapping
from common.system import files
from common.system.files import NotRegular, check_files, kind_of, open_regular, read_bytes, read_text_file

KINDS = {"pipe": "a named pipe", "socket": "a socket", "zero": "a device", "folder": "a folder", "link": "a device"}


def make(path: Path, kind: str) -> Path:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket may have 107 bytes
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
        os.chdir(here)
    elif kind == "folder":
        path.mkdir()
    elif kind in ("zero", "link"):
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused_at_once_with_its_name_and_kind(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path / "data.yaml", kind)
    for read in (open_regular, read_bytes):
        with pytest.raises(NotRegular, match=f"data.yaml: it is {KINDS[kind]}, not a regular file"):
            read(path)
    with pytest.raises(DataError, match=f"cannot be read: it is {KINDS[kind]}"):
        read_yaml(path)
    assert read_mapping(path) == {}
    assert kind_of(path) == KINDS[kind]


def test_a_pipe_that_takes_the_place_of_a_file_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "a", "pipe")
    looked = iter([None, "a named pipe"])
    monkeypatch.setattr(files, "_kind", lambda facts: next(looked))
    with pytest.raises(NotRegular, match="a named pipe"):
        open_regular(path)


def test_files_and_links_to_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    (tmp_path / "b").symlink_to("a")
    assert read_text_file(tmp_path / "b", largest=11) == "one\r\ntwo"
    with pytest.raises(DataError, match="is larger than 0 MiB"):
        read_text_file(tmp_path / "b", largest=10)
    assert kind_of(tmp_path / "b") is None
    assert kind_of(tmp_path / "missing") is None
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "missing")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to("a.jsonl")
    (tmp_path / "up").symlink_to(".")
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(tmp_path / "a.jsonl")
    check_files(tmp_path, below=True)
    assert locate(["**/*.jsonl"], None, tmp_path)[1] == [
        f"no file matches **/*.jsonl below {tmp_path}. Correct the pattern, or pass data_root=<folder>"
    ]


def test_a_folder_for_a_library_holds_files_and_folders_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "config.json").write_text("{}")
    make(tmp_path / "deep" / "x.yaml", "pipe")
    check_files(tmp_path)
    with pytest.raises(NotRegular, match=r"x\.yaml: it is a named pipe"):
        check_files(tmp_path, below=True)
    make(tmp_path / "tokenizer.json", "pipe")
    with pytest.raises(NotRegular, match=r"tokenizer\.json: it is a named pipe"):
        locate_checkpoint(str(tmp_path))
    with pytest.raises(NotRegular, match=r"x\.gguf: it is a device"):
        locate_checkpoint(str(make(tmp_path / "x.gguf", "zero")))
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "x.gguf").unlink()
    monkeypatch.setattr(files, "MOST_ENTRIES", 1)
    with pytest.raises(DataError, match="holds more than 1 files"):
        check_files(tmp_path)


def test_a_source_and_a_file_of_a_result_are_named(tmp_path: Path) -> None:
    make(tmp_path / "a.jsonl", "pipe")
    (problem,) = locate(["a.jsonl"], None, tmp_path)[1]
    assert problem.startswith("a.jsonl is a named pipe, not a file")
    facts = {"files": {"a.jsonl": {"size": 0, "sha256": "0"}}}
    assert damage(tmp_path, facts) == "a.jsonl is a named pipe, not a file"
