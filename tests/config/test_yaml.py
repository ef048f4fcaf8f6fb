"""YAML files are read as they are meant, and their mistakes are placed."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config.yaml import MOST_SOURCES, parse_value, read_front_matter, read_manifest, read_yaml
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
        ("a: {<<: 5}", r"line 1, column 9: not valid YAML: << needs a mapping, or a list of mappings"),
        ("a: {<<: {b: 1}, b: 2, b: 3}", r"key 'b' is given twice"),
        ("a: {b: 2, <<: {b: 1}, b: 3}", r"key 'b' is given twice"),
        ("a: 1\n---\nb: 2", r"line 2, column 1: not valid YAML: another document begins; write one in a file"),
        ("a: *b", r"line 1, column 4: not valid YAML: there is no 'b' for this alias to mean"),
        ("a: 9223372036854775809", r"line 1, column 4: .*is too large a number; put it in quotes if it is a text"),
        ("a: !!int x", r"line 1, column 4: not valid YAML: 'x' is no int"),
        ("a: !!int", r"not valid YAML: '' is no int"),
        ("a: !!bool maybe", r"not valid YAML: 'maybe' is no bool"),
        ("a: !!timestamp 2024-13-45", r"not valid YAML: the tag !!timestamp is not read here; write a plain value"),
        ("a: !!python/object/apply:os.system [id]", r"the tag !!python/object/apply:os.system is not read here"),
        ("a: !function x.y", r"the tag !function is not read here"),
        ("a: !!map [b]", r"the tag !!map is not read here"),
        ("a: 1".encode("utf-16"), r"byte 0 is not UTF-8"),
        (b"title: \xff\n", r"byte 7 is not UTF-8"),
        ("title: \x00", r"not valid YAML"),
    ],
)
def test_mistakes_are_placed(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_yaml(write(tmp_path, text))


def test_merge_keys_give_what_is_not_written_out(tmp_path: Path) -> None:
    text = """
base: &base {licence: mit, limit: 5}
more: &more {limit: 6, note: x}
sources:
- {<<: *base, id: a, limit: 7}
- id: b
  limit: 8
  <<: [*base, *more]
- {"<<": 9}
- [<<, {<<: {<<: *more}}]
last: <<
"""
    assert read_yaml(write(tmp_path, text)) | {"base": 0, "more": 0} == {
        "base": 0,
        "more": 0,
        "sources": [
            {"licence": "mit", "limit": 7, "id": "a"},
            {"id": "b", "limit": 8, "licence": "mit", "note": "x"},
            {"<<": 9},
            ["<<", {"limit": 6, "note": "x"}],
        ],
        "last": "<<",
    }
    assert parse_value("<<") == "<<"


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


def bomb(width: int, levels: int) -> str:
    """Return lists of aliases of lists of aliases: `width` to the power of `levels` values."""
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(9, 9), r"line \d, column \d+: .*its aliases repeat more than 100,000 values"),
        (f"a: &a '{'x' * 10_000_000}'\nb: [*a]", "its aliases repeat more than 100,000 values"),
        ("a: &a [*a]", "the alias 'a' stands inside what it means"),
        ("a: &a {<<: *a}", "the alias 'a' stands inside what it means"),
        ("a: &a {b: *a}", "the alias 'a' stands inside what it means"),
        ("a: " + "[" * 100_000, "more than 100 lists and mappings inside each other"),
        ("{a: " * 100_000, "more than 100 lists and mappings inside each other"),
        ("- " * 100_000, "more than 100 lists and mappings inside each other"),
        ("? " * 100_000, "more than 100 lists and mappings inside each other"),
        ("".join(" " * i + "a:\n" for i in range(150)), "line 101, .*more than 100 lists"),
        ("a: " + "9" * 5000, "a number of 5,000 characters; at most 400 are read"),
        ("a: 1" + ":59" * 30_000, "a number of 90,001 characters"),
        ("a: 0x" + "f" * 10_000, "a number of 10,002 characters"),
        ("a: *" + "x" * 100_000, r"there is no 'x+…x+' for this alias"),
        ("a: !" + "x" * 100_000 + " b", r"the tag !x+…x+ is not read"),
        (f"? {'x' * 200}\n: 1\n? {'x' * 200}\n: 2\n", r"key 'x+…x+' is given twice"),
    ],
    ids=lambda value: value[:20],
)
def test_what_would_cost_too_much_is_refused_at_once(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        read_yaml(path)
    assert len(str(caught.value)) < 400
    assert parse_value(text) == text  # whoever asked for a number says that this is text


def test_a_file_of_a_hundred_megabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "data.yaml").open("wb") as stream:
        stream.truncate(100_000_000)
    with pytest.raises(DataError, match=r"data\.yaml: is larger than 16 MiB"):
        read_yaml(tmp_path / "data.yaml")


def test_what_is_within_the_bounds_is_read(tmp_path: Path) -> None:
    text = "\N{ZERO WIDTH NO-BREAK SPACE}shared: &x {a: [1, ~]}\nagain: [*x, *x]\n"
    text += "sum: !!str 5\nsize: !!int '7'\ntwo: !\nis: =\n"
    shared = {"a": [1, None]}
    assert read_yaml(write(tmp_path, text)) == {
        "shared": shared, "again": [shared, shared], "sum": "5", "size": 7, "two": "", "is": "=",
    }  # fmt: skip
    assert read_yaml(write(tmp_path, "")) is None
    assert read_yaml(write(tmp_path, "a: " + "[" * 99 + "]" * 99))["a"]


def test_tags_of_another_program_are_passed_over_on_demand(tmp_path: Path) -> None:
    path = write(tmp_path, "a: !function x.y\nb: !list [1]\nc: 2\n")
    assert read_yaml(path, any_tag=True) == {"a": None, "b": None, "c": 2}
    with pytest.raises(DataError, match="!!python/name:os is not read"):
        read_yaml(write(tmp_path, "a: !!python/name:os x"), any_tag=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: mit\nlanguage: no\n---\n# Title\n", {"license": "mit", "language": "no"}),
        ("\n---\r\nlicense: mit\r\n---", {"license": "mit"}),
        ("# Title\n---\nlicense: mit\n---\n", {}),
        ("---\nlicense: mit\n", {}),
        ("---\n- mit\n---\n", {}),
        ("---\na: " + "[" * 100_000 + "\n---\n", {}),
        ("---\n" + bomb(9, 9) + "\n---\n", {}),
        ("---\na: !!timestamp 99999-99-99\n---\n", {}),
    ],
    ids=range(8),
)
def test_front_matter_is_read_or_there_is_none(text: str, expected: object, tmp_path: Path) -> None:
    assert read_front_matter(write(tmp_path, text)) == expected
    assert read_front_matter(tmp_path / "none.md") == {}


def test_a_manifest_is_parsed_once_as_long_as_it_stays(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("{title: a}")
    assert read_manifest(path) is read_manifest(path)
    path.write_text("{title: other}")
    assert read_manifest(path) == {"title": "other"}


def test_a_manifest_of_too_many_sources(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(f"sources: [{'{}, ' * (MOST_SOURCES + 1)}]")
    with pytest.raises(DataError, match=r"10,001 sources; at most 10,000 are read\. One source may have many files"):
        read_manifest(path)
