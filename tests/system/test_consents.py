"""Consents are the user's own files: whole, not through links, not anybody else's, and for the very files they name."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from common.system.consents import Consent, folder, remember, stored

FILES = {"rewards.py": "a" * 64, "eval/helper.py": "b" * 64}


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_what_is_stored_is_found_again() -> None:
    assert stored("mine") == []
    path = remember("mine", FILES)
    [consent] = stored("mine")
    assert (consent.domain, consent.files) == ("mine", FILES)
    assert path == folder() / f"mine-{consent.digest}.json"
    assert len(consent.digest) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder().stat().st_mode) == stat.S_IMODE(folder().parent.stat().st_mode) == 0o700
    assert [name.name for name in folder().iterdir()] == [path.name]  # nothing half-written is left
    assert stored("min") == stored("other") == []
    remember("mine", {"rewards.py": "c" * 64})
    os.utime(path, (1, 1))
    assert [found.files["rewards.py"][0] for found in stored("mine")] == ["c", "a"]  # the latest first


def test_differences_are_named_by_file() -> None:
    assert Consent("mine", FILES).differences({"rewards.py": "c" * 64, "new.py": "d"}) == [
        "eval/helper.py (gone)", "new.py (new)", "rewards.py (changed)",
    ]  # fmt: skip


def _linked(path: Path) -> None:
    path.rename(path.with_suffix(".kept"))
    path.symlink_to(path.with_suffix(".kept"))


def _folder_linked(path: Path) -> None:
    place = path.parent
    place.rename(place.with_name("elsewhere"))
    place.symlink_to(place.with_name("elsewhere"))


def _edited(path: Path) -> None:
    path.write_text(path.read_text("utf-8").replace("a" * 64, "e" * 64), encoding="utf-8")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARM: dict[str, Callable[[Path], object]] = {
    "half written": lambda path: path.write_text(path.read_text("utf-8")[:-30], encoding="utf-8"),
    "empty": lambda path: path.write_text("", encoding="utf-8"),
    "a list": lambda path: path.write_text("[]", encoding="utf-8"),
    "files of no kind": lambda path: path.write_text('{"domain": "mine", "files": 3, "given": 1}', encoding="utf-8"),
    "brackets": lambda path: path.write_text("[" * 100_000, encoding="utf-8"),
    "bytes": lambda path: path.write_bytes(b"\xff\xfe"),
    "huge": lambda path: path.write_text(" " * 5_000_000 + path.read_text("utf-8"), encoding="utf-8"),
    "edited": _edited,
    "renamed for another domain": lambda path: path.rename(path.with_name(path.name.replace("mine", "mine-2"))),
    "a link": _linked,
    "a link to its folder": _folder_linked,
    "a pipe": _pipe,
    "a folder": _folder,
    "others may write it": lambda path: path.chmod(0o666),
    "its group may write it": lambda path: path.chmod(0o620),
    "others may write its folder": lambda path: path.parent.chmod(0o777),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_what_is_not_a_whole_file_of_this_user_counts_for_nothing(harm: Callable[[Path], object]) -> None:
    harm(remember("mine", FILES))
    assert stored("mine") == stored("mine-2") == []


def test_what_another_user_owns_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    remember("mine", FILES)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert stored("mine") == []
    with pytest.raises(OSError, match="is not this user's alone"):
        remember("mine", FILES)


def test_a_link_in_its_place_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    path = remember("mine", FILES)
    victim = tmp_path / "victim"
    victim.write_text("kept", encoding="utf-8")
    path.unlink()
    path.symlink_to(victim)
    (path.parent / f".{path.name}.{os.getpid()}").symlink_to(victim)
    remember("mine", FILES)
    assert victim.read_text("utf-8") == "kept"
    assert not path.is_symlink()
    assert json.loads(path.read_text("utf-8"))["files"] == FILES


def test_a_kill_while_writing_leaves_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    remember("mine", FILES)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
        remember("mine", {"rewards.py": "c" * 64})
    assert [found.files for found in stored("mine")] == [FILES]


def test_without_a_home_nothing_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    assert stored("mine") == []
    with pytest.raises(RuntimeError):
        remember("mine", FILES)
