"""Every format gives its records with their places, and every broken file an error that names the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.data.manifest.files.texts import PARAGRAPH_CHARACTERS
from common.data.manifest.hub import read_hub
from common.data.manifest.readers import Reading, Record, SourceFile, pieces_of, read_file
from common.data.manifest.schema import Source
from common.errors import DataError


def read(folder: Path, name: str, content: str | bytes, unit: str = "paragraph") -> list[tuple[str, Any]]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(record.where, record.value) for record in read_file(SourceFile(path, name), Reading(unit))]


def texts(folder: Path, name: str, content: str | bytes, unit: str = "paragraph") -> list[str]:
    return [value["text"] for _, value in read(folder, name, content, unit)]


def test_jsonl(tmp_path: Path) -> None:
    content = '\ufeff{"a": 1}\r\n\n{"a": "x\u2028y"}'
    assert read(tmp_path, "a.jsonl", content) == [("a.jsonl, line 1", {"a": 1}), ("a.jsonl, line 3", {"a": "x\u2028y"})]


def test_json(tmp_path: Path) -> None:
    assert read(tmp_path, "a.json", '[{"a": 1},\n {"a": 2}]')[1] == ("a.json, item 2", {"a": 2})


def test_csv_and_tsv(tmp_path: Path) -> None:
    content = 'q,a\n"one, ""two""\nthree",x\n\n' + "y" * 200_000 + ",z\n"
    first, second = read(tmp_path, "a.csv", content)
    assert first == ("a.csv, line 2", {"q": 'one, "two"\nthree', "a": "x"})
    assert second[0] == "a.csv, line 5"
    assert read(tmp_path, "a.tsv", "q\ta\n1,5\tb\n") == [("a.tsv, line 2", {"q": "1,5", "a": "b"})]


def test_tables_without_a_line_of_names(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("1 + 1?\t2\n2 + 2?\t4\n")
    records = list(read_file(SourceFile(path, "a.tsv"), Reading(header=("q", "a"))))
    assert [(record.where, record.value) for record in records] == [
        ("a.tsv, line 1", {"q": "1 + 1?", "a": "2"}),
        ("a.tsv, line 2", {"q": "2 + 2?", "a": "4"}),
    ]
    flaws = [record.flaw for record in read_file(SourceFile(path, "a.tsv"), Reading(header=("q",)))]
    assert [flaw.reason for flaw in flaws if flaw] == ["wrong number of fields"] * 2


def test_numbers_of_records() -> None:
    assert Record("my, file 2.jsonl, line 12", {}).number == "12"
    assert Record("a.json, item 3, questions 2", {}, inside=True).number == "3.2"


def test_pieces_of_a_long_text() -> None:
    short, long = "s" * 900, "l" * 5000
    assert list(pieces_of(f"{short}\n\n{short}\n\n{long}\n\n\n{short}\n", "paragraph")) == [
        f"{short}\n\n{short}", long, short
    ]  # fmt: skip
    assert list(pieces_of(f"{short}\n{short}\n\n{short}", "line")) == [f"{short}\n{short}", short]


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": [f"t{i}" for i in range(3000)], "list": [["a"]] * 3000})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    records = list(read_file(SourceFile(tmp_path / "a.parquet", "a.parquet"), Reading()))
    assert len(records) == 3000
    assert records[2999][:2] == ("a.parquet, row 3000", {"text": "t2999", "list": ["a"]})


def test_units_of_text(tmp_path: Path) -> None:
    content = "One.\r\nStill one.\r\n \r\nTwo.\n"
    assert texts(tmp_path, "a.txt", content) == ["One.\nStill one.\n\nTwo."]
    assert texts(tmp_path, "a.txt", content, "line") == ["One.", "Still one.", "Two."]
    assert texts(tmp_path, "a.txt", content, "file") == [content]


def test_paragraphs_are_joined_to_a_length_and_never_cut(tmp_path: Path) -> None:
    short, long = "s" * 900, "l" * 5000
    rows = texts(tmp_path, "a.txt", "\n\n".join([short, short, short, long, short]))
    assert rows == [f"{short}\n\n{short}", short, long, short]
    assert len(rows[0]) <= PARAGRAPH_CHARACTERS


def test_front_matter_is_no_text(tmp_path: Path) -> None:
    assert read(tmp_path, "a.md", "---\ntitle: x\n---\n# Head\n") == [("a.md, line 4", {"text": "# Head"})]
    assert texts(tmp_path, "a.md", "---\nnever closed\n") == ["---\nnever closed"]
    assert texts(tmp_path, "a.txt", "---\na\n---\nb\n") == ["---\na\n---\nb"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', r"a\.jsonl, line 2.*: not valid JSON: Expecting value.*remove this line"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl: not readable as JSON"),
        ("a.json", '{"a": 1}', r"a\.json: holds a single object; expected a list of objects"),
        ("a.csv", "q,q\n1,2\n", r"a\.csv, line 1: the header names \['q'\] more than once"),
        ("a.parquet", b"PAR1 nothing", r"a\.parquet: not readable as parquet after row 0"),
        ("a.odt", "x", r"a\.odt: format '\.odt' cannot be read\. Expected one of \.jsonl"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, name, content)


def test_a_file_that_went_away(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read: No such file"):
        list(read_file(SourceFile(tmp_path / "gone.txt", "gone.txt"), Reading()))


def hub_source(**facts: Any) -> Source:
    return Source.model_validate({"id": "h", "role": "cpt", "licence": "mit", "split": "train", **facts})


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("offline")
def test_hub_reads_through_the_library(tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": f"{name} {i}"}) + "\n" for i in range(3)))
    records = list(read_hub(hub_source(hub=str(folder), split="test")))
    assert [record.value["text"] for record in records] == ["test 0", "test 1", "test 2"]
    assert records[2].where == f"{folder}[test], row 3"
    records = list(read_hub(hub_source(hub=str(folder), data_files=["test.jsonl"])))
    assert records[0].value == {"text": "test 0"}


@pytest.mark.usefixtures("offline")
def test_hub_out_of_reach(tmp_path: Path) -> None:
    message = r"Source 'h': the Hub could not be reached for some-owner/some-name\[train\].*data=embedded needs none"
    with pytest.raises(DataError, match=message):
        list(read_hub(hub_source(hub="some-owner/some-name")))


@pytest.mark.usefixtures("offline")
def test_hub_facts_that_are_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(DataError, match=r"Source 'h': .*\[test\] cannot be read \(ValueError: Bad split.*Compare hub"):
        list(read_hub(hub_source(hub=str(folder), split="test")))
    (folder / "repo.py").write_text("")
    (folder / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"needs a loading script.*refs/convert/parquet"):
        list(read_hub(hub_source(hub=str(folder))))
