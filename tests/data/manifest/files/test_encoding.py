"""Encodings are found or named, and told; a line that cannot be decoded is lost alone."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

from common.errors import DataError
from tests.data.manifest.files.reading import Found, read

GERMAN = "Ein Hafenkran hebt Lasten \u2013 für Schiffe."


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_encodings_are_found(tmp_path: Path, encoding: str, name: str) -> None:
    text = GERMAN.replace("\u2013", "-") if encoding == "latin-1" else GERMAN
    content = {
        "a.jsonl": f'{{"text": "{text}"}}\r\n', "a.json": f'[{{"text": "{text}"}}]', "a.csv": f"text\r\n{text}\r\n",
        "a.txt": f"{text}\r\n",
    }[name]  # fmt: skip
    found = read(tmp_path, name, content.encode(encoding))
    assert found.values == [{"text": text}]
    assert bool(found.told) == (not encoding.startswith("utf-8"))


def test_what_is_guessed_is_told_with_the_place_and_the_way_out(tmp_path: Path) -> None:
    found = read(tmp_path, "a.txt", "plain\ncafé\n".encode("cp1252"), unit="line")
    assert [value["text"] for value in found.values] == ["plain", "café"]
    assert found.told == [
        "a.txt, line 2: byte 4 of the line (0xe9) is not UTF-8, so the file is read as Windows-1252 (cp1252). Name "
        "another with encoding:, such as cp1251 or gb18030"
    ]


def test_after_proof_of_utf8_a_broken_line_is_lost_alone(tmp_path: Path) -> None:
    found = read(tmp_path, "a.txt", "café\n".encode() + b"caf\xe9\n" + b"tea\n", unit="line")
    assert [value["text"] for value in found.values] == ["café", "tea"]
    assert found.reasons == ["not UTF-8"]
    assert found.flaws[0].startswith("a.txt, line 2: byte 4 of the line (0xe9) is not UTF-8, and the lines before")
    with pytest.raises(DataError, match=r"a\.json, line 2: byte 3 of the line \(0xe9\) is not UTF-8"):
        read(tmp_path, "a.json", '["é",\n '.encode() + b'"\xe9"]')


@pytest.mark.parametrize("encoding", ["cp1251", "gb18030", "shift_jis"])
def test_another_alphabet_is_refused_and_read_once_it_is_named(tmp_path: Path, encoding: str) -> None:
    text = {
        "cp1251": "\u041f\u043e\u0440\u0442\u043e\u0432\u044b\u0439 \u043a\u0440\u0430\u043d",
        "gb18030": "港口起重机用来装卸货物",
        "shift_jis": "港のクレーンは荷物を持ち上げる",
    }[encoding]
    message = r"a\.txt, line 1: byte 1 of the line.*nor does the line look like Windows-1252\. Name the file's encoding"
    with pytest.raises(DataError, match=message):
        read(tmp_path, "a.txt", text.encode(encoding))
    assert read(tmp_path, "a.txt", text.encode(encoding), encoding=encoding).values == [{"text": text}]


def test_a_line_that_the_named_encoding_does_not_know(tmp_path: Path) -> None:
    found = read(tmp_path, "a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', encoding="ascii")
    assert (found.values, found.reasons) == ([{"a": 1}], ["not ascii"])
    assert "line 2: byte 8 of the line (0xff) is not ascii, which encoding: names" in found.flaws[0]
    with pytest.raises(DataError, match=r"a\.txt, after line \d: not utf-16.*: .*Name another with encoding:"):
        read(tmp_path, "a.txt", "ab\ncd\n".encode("utf-16") + b"x")


def test_line_ends_of_old_macs(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "q,a\r1,2\r3,4").values == [{"q": "1", "a": "2"}, {"q": "3", "a": "4"}]
    assert len(read(tmp_path, "a.txt", "one\rtwo\r", unit="line").values) == 2


def test_a_long_line_of_json_is_read_in_parts_that_cut_no_character(tmp_path: Path) -> None:
    text = "é漢" * 1_000_000
    assert read(tmp_path, "a.json", f'[{{"text": "{text}"}}]').values == [{"text": text}]


@pytest.mark.parametrize(
    ("encoding", "end"), [("utf-8", "\n"), ("utf-8", "\r"), ("utf-16", "\n"), ("cp1252", "\n"), ("cp1252", "\r")]
)
def test_a_line_that_is_too_long_to_be_held_is_lost_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, end: str
) -> None:
    monkeypatch.setattr("common.data.manifest.files.encoding.LONGEST_LINE", 100)
    text = end.join(["café", "x" * 1000, "tea", "y" * 98, "z" * 100])
    found = read(tmp_path, "a.txt", text.encode(encoding), unit="line")
    assert [value["text"] for value in found.values] == ["café", "tea", "y" * 98]
    assert found.reasons == ["line too long"] * 2
    assert found.flaws[0] == "a.txt, line 2: has 100 characters or more. Break it into several records"
    assert "line 5" in found.flaws[1]
    assert read(tmp_path, "a.txt", text.encode(encoding), unit="file").flaws == []  # nobody has to hold a line of it


def test_a_line_that_unpacks_to_a_thousand_times_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"t": "' + bytes(150_000_000).replace(b"\0", b"x") + b'"}\n{"t": "y"}\n', 1))
    tracemalloc.start()
    found = Found(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.values, found.reasons) == ([{"t": "y"}], ["line too long"])
    assert peak < 220e6  # before: two and a half times the line


def test_a_line_without_an_end_ends_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.manifest.files.encoding.LONGEST_LINE", 100)
    monkeypatch.setattr("common.data.manifest.files.encoding.ENDLESS", 1000)
    lines = ['{"t": "%s"}' % ("x" * 900), '{"t": "y"}']
    assert read(tmp_path, "a.jsonl", "\n".join([*lines, *lines])).reasons == ["line too long"] * 2
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: has more than 1,000 characters, so it is no file of rows"):
        read(tmp_path, "a.jsonl", '{"t": "y"}\n' + "x" * 5000)
