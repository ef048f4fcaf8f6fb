"""JSON files of strangers: read within bounds, and refused in a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.config import json as reader
from common.config.json import depth_of, parse_json, read_json
from common.errors import DataError

HOSTILE = [
    (b"[" * 100_000, "more than 100 lists and objects inside each other"),
    (b"[" * 101 + b"]" * 101, "more than 100 lists and objects inside each other"),
    (b'{"a":' * 100_000, "more than 100 lists"),
    (b"1" + b"0" * 5000, "10+…0+ is too large a number"),
    (b"[-9223372036854775809]", "-9223372036854775809 is too large a number"),
    (b'{"a": 1, "a": 2}', "key 'a' is given twice"),
    (b"[NaN]", "NaN is no number of JSON"),
    (b"[-Infinity]", "-Infinity is no number of JSON"),
    (b"[1e999]", "1e999 is no finite number"),
    (b'["\\ud800"]', "an escape .* half a character"),
    (b'{"\\uDFFF": 1}', "an escape .* half a character"),
    (b"", r"Expecting value \(line 1, column 1\)"),
    (b"{}\n{}", r"Extra data \(line 2, column 1\)"),
    (b'{"a": "\x00"}', "Invalid control character"),
    (b"\x00", "Expecting value"),
]


@pytest.mark.parametrize(("data", "message"), HOSTILE, ids=[message[:30] for _, message in HOSTILE])
def test_what_cannot_be_read_is_refused_in_a_sentence(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"^.*plan\.json: not valid JSON: {message}.*\. Plan it again\.$"):
        read_json(path, advice="Plan it again.")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'"\xff"', r"byte 1 is not UTF-8\. Save the file as UTF-8\."),
        ("{}".encode("utf-16"), r"byte 0 is not UTF-8"),
        (b" " * 101, r"is larger than 0 MiB"),
    ],
)
def test_bytes_that_are_no_text_of_such_a_file(
    data: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LARGEST", 100)
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.json: {message}"):
        read_json(tmp_path / "a.json")


def test_what_is_no_file() -> None:
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        read_json(Path("none.json"))
    with pytest.raises(DataError, match="cannot be read: embedded null byte"):
        read_json(Path("a\0b"))
    with pytest.raises(DataError, match="cannot be read: it is a device, not a regular file"):
        read_json(Path("/dev/zero"))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(DataError, match="it is a named pipe, not a regular file"):
        read_json(tmp_path / "a.json")


def test_what_libraries_accept_in_a_checkpoint_is_accepted_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'\xef\xbb\xbf{"time_step_limit": [0.0, Infinity], "a": 1, "a": 2, "e": "\\ud83d\\ude00"}')
    assert read_json(path, strict=False) == {
        "time_step_limit": [0.0, float("inf")],
        "a": 2,
        "e": "\N{GRINNING FACE}",
    }
    with pytest.raises(DataError, match="Infinity is no number of JSON"):
        read_json(path)


def test_depth_within_the_bound_is_read() -> None:
    assert depth_of(parse_json("[" * 100 + "]" * 100)) == 100
    assert depth_of(parse_json('{"a": [1, {"b": 2}], "brackets": "' + "[" * 200 + '"}')) == 3
    assert depth_of(1) == 0


def test_whole_numbers_of_any_length_are_read_by_those_who_check_them() -> None:
    assert parse_json("1" * 30, strict=False) == int("1" * 30)
    with pytest.raises(ValueError, match="a number of thousands of digits"):
        parse_json("1" * 5000, strict=False)


def test_the_second_of_very_many_keys_is_found_at_once() -> None:
    keys = ", ".join(f'"k{number}": 1' for number in range(50_000))
    with pytest.raises(ValueError, match="key 'k49999' is given twice"):
        parse_json(f'{{{keys}, "k49999": 2}}')
