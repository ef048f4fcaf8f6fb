"""Parquet, arrow and saved data sets: named columns alone are decoded, and a bad cell costs its row."""

from __future__ import annotations

import datetime
import decimal
import json
import re
import struct
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from common.data.manifest.files.arrow import shards_of
from common.data.manifest.readers import Reading, SourceFile, read_file
from common.data.manifest.records import rows_of
from common.data.manifest.schema import Source
from common.data.manifest.values import UnusableRow
from common.errors import DataError
from tests.data.manifest.files.reading import Found

BAD = b"caf\xe9"


def texts(values: list[bytes | None]) -> pyarrow.Array:
    """An array that says it is text, with whatever bytes."""
    return pyarrow.array(values, pyarrow.binary()).view(pyarrow.string())


def written(folder: Path, name: str, table_of: dict[str, Any], **reading: Any) -> Found:
    path, table = folder / name, pyarrow.table(table_of)
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(table, path)
    elif name.endswith(".feather"):
        pyarrow.feather.write_feather(table, path)
    else:
        with path.open("wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return Found(path, **reading)


FORMATS = pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])


@FORMATS
def test_a_bad_cell_costs_its_row_where_its_column_is_named(tmp_path: Path, name: str) -> None:
    columns = {"q": texts([b"one", BAD, b"three", None]), "a": ["1", "2", "3", "4"]}
    found = written(tmp_path, name, columns, columns=("q", "a"))
    assert [value["q"] for value in found.values] == ["one", "three", None]
    assert found.reasons == ["a cell cannot be decoded"]
    assert found.flaws[0].startswith(f"{name}, row 2: column 'q': 'utf-8' codec can't decode byte 0xe9")
    found = written(tmp_path, name, columns, columns=("a",))
    assert [value["a"] for value in found.values] == ["1", "2", "3", "4"]
    assert [*found.values[0]] == ["q", "a"]  # so that a message can list what there is
    assert len(written(tmp_path, name, columns).values) == 4  # of unnamed columns nobody knows which are used


@FORMATS
def test_dates_that_python_has_not(tmp_path: Path, name: str) -> None:
    far = pyarrow.array([300_000_000_000], pyarrow.timestamp("s"))
    found = written(tmp_path, name, {"q": ["x"], "when": far}, columns=("q",))
    assert found.values[0]["q"] == "x"
    assert (
        written(tmp_path, name, {"q": ["x"], "when": far}, columns=("q", "when")).values[0]["when"].startswith("11476-")
    )
    farthest = pyarrow.array([9**15], pyarrow.timestamp("s"))
    found = written(tmp_path, name, {"q": ["x"], "when": farthest}, columns=("q", "when"))
    assert found.reasons == ["a cell cannot be decoded"]
    assert "column 'when': value out of range: 205891132094649" in found.flaws[0]
    inside = pyarrow.array([[300_000_000_000]], pyarrow.list_(far.type))
    assert written(tmp_path, name, {"q": ["x"], "n": inside}, columns=("q",)).values[0]["q"] == "x"
    assert written(tmp_path, name, {"q": ["x"], "n": inside}, columns=("n",)).reasons == ["a cell cannot be decoded"]


@FORMATS
def test_values_become_text(tmp_path: Path, name: str) -> None:
    columns = {
        "day": [datetime.date(2024, 5, 1)], "price": [decimal.Decimal("1.50")], "raw": [b"bytes"], "n": [3],
        "list": [[{"day": datetime.date(2024, 5, 1), "raw": b"x"}]],
        "kind": pyarrow.array(["a"]).dictionary_encode(),
    }  # fmt: skip
    assert written(tmp_path, name, columns, columns=(*columns,)).values == [
        {"day": "2024-05-01", "price": "1.50", "raw": "bytes", "n": 3, "list": [{"day": "2024-05-01", "raw": "x"}],
         "kind": "a"}
    ]  # fmt: skip


@FORMATS
def test_a_picture_beside_a_conversation_is_the_reason_that_is_counted(tmp_path: Path, name: str) -> None:
    talk = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    columns = {"messages": [talk, talk], "image": [BAD, None], "images": [[{"bytes": BAD, "path": None}], None]}
    facts = {"id": "s", "role": "sft", "path": name, "licence": "mit", "columns": {"messages": "messages"}}
    source = Source.model_validate(facts)
    found = written(tmp_path, name, columns, columns=source.reading.columns)
    assert [value["image"] for value in found.values] == [BAD, None]
    lost, kept = [made.row for record in found.records for made in rows_of(source, record)]
    assert str(lost) == "a conversation about images, which are not supported"
    assert not isinstance(kept, UnusableRow)


def test_bytes_that_are_no_text_do_not_get_into_rows(tmp_path: Path) -> None:
    call = {"function": {"name": "f", "arguments": {"x": BAD}}}
    turns = {
        "f": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": [call]}],
        "tool": [{"role": "tool", "content": {"x": BAD}}],
        "user": [{"role": "user", "content": BAD}],
    }
    facts = {"id": "s", "role": "sft", "path": "a.parquet", "licence": "mit", "columns": {"messages": "messages"}}
    source = Source.model_validate(facts)
    for talk in turns.values():
        found = written(tmp_path, "a.parquet", {"messages": [talk]}, columns=("messages",))
        (made,) = rows_of(source, found.records[0])
        assert str(made.row) in ("bytes that are no text", "messages is no text")


def test_nested_columns_and_names_with_dots(tmp_path: Path) -> None:
    columns = {"a": [{"b": [{"c": "x"}], "d": 1}], "a.b": ["y"], "other": ["z"]}
    assert written(tmp_path, "a.parquet", columns, columns=("a.b.0.c",)).values == [
        {"a": {"b": [{"c": "x"}], "d": 1}, "a.b": None, "other": None}
    ]
    assert written(tmp_path, "a.parquet", columns, columns=("a.b",)).values[0]["a.b"] == "y"


def test_large_rows_come_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.manifest.files.arrow.BATCH_BYTES", 1000)
    read_so_far: list[float] = []
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"t": [f"{n} " * 500 for n in range(40)]}), path, row_group_size=40)
    records = list(read_file(SourceFile(path, "a.parquet", read_so_far.append), Reading()))
    assert [record.where for record in records][::39] == ["a.parquet, row 1", "a.parquet, row 40"]
    assert read_so_far[-1] == path.stat().st_size
    assert read_so_far[0] < read_so_far[-1] / 20


def saved(folder: Path, rows: int, shards: int = 1) -> None:
    import datasets

    data = datasets.Dataset.from_dict({"q": [f"q{number}" for number in range(rows)]})
    data.save_to_disk(str(folder), num_shards=shards)


def test_a_saved_data_set_is_read_in_the_order_of_its_shards(tmp_path: Path) -> None:
    saved(tmp_path / "faq", 10, shards=3)
    shards = shards_of(tmp_path / "faq", None)
    assert len(shards) == 3
    file = SourceFile(tmp_path / "faq", "faq", shards=shards)
    records = list(read_file(file, Reading(columns=("q",))))
    assert [record.value["q"] for record in records] == [f"q{number}" for number in range(10)]
    assert records[9].where == "faq, row 10"
    turned = file._replace(shards=shards[::-1])
    assert file.digest != turned.digest
    assert file.size == sum(path.stat().st_size for path in shards)


def test_saved_folders_that_cannot_be_read(tmp_path: Path) -> None:
    import datasets

    data = datasets.Dataset.from_dict({"q": ["x"]})
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(str(tmp_path / "both"))
    assert shards_of(tmp_path / "both", "test") == (tmp_path / "both" / "test" / "data-00000-of-00001.arrow",)
    for split in (None, "dev"):
        with pytest.raises(DataError, match=r"holds the splits train, test\. Name one of them with split:"):
            shards_of(tmp_path / "both", split)
    saved(tmp_path / "one", 4, shards=2)
    (tmp_path / "one" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"lacks data-00001-of-00002\.arrow\. Save the data set again"):
        shards_of(tmp_path / "one", None)
    (tmp_path / "one" / "state.json").write_text(json.dumps({"_split": "train"}))
    with pytest.raises(DataError, match=r"holds the split train alone, and the source asks for test"):
        shards_of(tmp_path / "one", "test")
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(DataError, match=r"has a state\.json that cannot be read"):
        shards_of(tmp_path / "one", None)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(("dataset_dict.json", text) for text in ("null", '["x"]', '{"splits": null}', '{"splits": [{}]}')),
        *(("state.json", text) for text in ("null", '["x"]', "[{}]", '{"_data_files": null}', '{"_data_files": [{}]}')),
        *(
            ("state.json", text)
            for text in ('{"_data_files": ["x"]}', '{"_data_files": [{"filename": 1}]}', "[" * 99999)
        ),
    ],
)
def test_a_saved_folder_with_a_damaged_list_says_what_to_do(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_text(content)
    message = rf"^has a {re.escape(file)} that cannot be read: .*\. Save the data set again, or copy all its files$"
    with pytest.raises(DataError, match=message):
        shards_of(tmp_path, "train")


@FORMATS
def test_a_file_that_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PAR1 nothing")
    kind = "parquet" if name == "a.parquet" else "arrow"
    with pytest.raises(DataError, match=rf"{name}: not readable as {kind} after row 0"):
        Found(tmp_path / name)


def test_a_cut_off_arrow_file_names_the_row_reached(tmp_path: Path) -> None:
    table = pyarrow.table({"t": [f"text {number}" for number in range(5000)]})
    with (tmp_path / "a.arrow").open("wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    data = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"a\.arrow: not readable as arrow after row 2000"):
        Found(tmp_path / "a.arrow")


@pytest.mark.parametrize(
    ("values", "offsets", "wrong"),
    [
        (["abcd", "efgh"], (0, 4, 8), (0, 2**30, 8)),
        (["abcd", "efgh"], (0, 4, 8), (0, -4, 8)),
        (["abcd", "efgh"], (0, 4, 8), (0, 4, 2**30)),
        ([["abcd"], ["e", "f", "g"]], (0, 1, 4), (0, 2**30, 4)),
    ],
)
def test_offsets_that_lead_out_of_the_file_are_no_crash(
    tmp_path: Path, values: list[Any], offsets: tuple[int, ...], wrong: tuple[int, ...]
) -> None:
    """pyarrow trusts them: it read beyond the file, or ended the process."""
    written(tmp_path, "a.arrow", {"text": values})
    good, bad = (struct.pack("<iii", *numbers) for numbers in (offsets, wrong))
    data = (tmp_path / "a.arrow").read_bytes()
    assert good in data
    (tmp_path / "b.arrow").write_bytes(data.replace(good, bad))
    with pytest.raises(DataError, match=r"^b\.arrow: not readable as arrow after row 0: "):
        Found(tmp_path / "b.arrow")
