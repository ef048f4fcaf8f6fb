"""The delimiter is found by the columns that are named, else by rows of one length; what is not usual is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.manifest.files.reading import read


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize(("sign", "word"), [(",", "commas"), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
@pytest.mark.parametrize("columns", [(), ("question", "answer")])
def test_delimiters_are_found(tmp_path: Path, name: str, sign: str, word: str, columns: tuple[str, ...]) -> None:
    rows = [["question", "answer"], *([f"Is it {n} or 1/{n}?", f"It is {n}: yes."] for n in range(5))]
    found = read(tmp_path, name, "".join(sign.join(row) + "\n" for row in rows), columns=columns)
    assert found.values[4] == {"question": "Is it 4 or 1/4?", "answer": "It is 4: yes."}
    usual = {"a.csv": ",", "a.tsv": "\t"}[name]
    told = [f"{name} is read with {word} between its fields. Name others with `delimiter`"]
    assert found.told == ([] if sign == usual else told)


def test_semicolons_with_decimal_commas_and_commas_in_texts(tmp_path: Path) -> None:
    content = 'name;price;note\nsalt;1,50;cheap, white\npepper;12,00;"dear; black"\n'
    assert read(tmp_path, "a.csv", content).values[1] == {"name": "pepper", "price": "12,00", "note": "dear; black"}


def test_one_column_of_texts_with_commas_has_no_delimiter(tmp_path: Path) -> None:
    found = read(tmp_path, "a.csv", 'text\n"One, two."\n"Three; four."\n', columns=("text",))
    assert [value["text"] for value in found.values] == ["One, two.", "Three; four."]


def test_columns_that_are_named_decide_against_the_look_of_the_rows(tmp_path: Path) -> None:
    found = read(tmp_path, "a.csv", "q|a,b\n1,2|3\n4,5|6\n", columns=("q", "a,b"))
    assert found.values == [{"q": "1,2", "a,b": "3"}, {"q": "4,5", "a,b": "6"}]


def test_a_delimiter_that_is_named_or_announced(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "q:a\n1:2\n", delimiter=":").values == [{"q": "1", "a": "2"}]
    assert read(tmp_path, "a.csv", "sep=;\nq;a\n1;2\n").values == [{"q": "1", "a": "2"}]


def test_names_that_are_given(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "1;2,5\n3;4,5\n", header=("q", "a")).values[1] == {"q": "3", "a": "4,5"}


def test_a_long_field_is_read_alike_in_a_new_process(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f'q\ta\n"one\t1"\t"{"x" * 200_000}"\n"two"\t"y"\n')
    program = f"""
from pathlib import Path
from common.data.manifest.readers import Reading, SourceFile, read_file
print([record.value["q"] for record in read_file(SourceFile(Path({str(path)!r}), "a.tsv"), Reading())])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['one\\t1', 'two']"


def test_blanks_before_fields_in_quotation_marks_are_no_text(tmp_path: Path) -> None:
    found = read(tmp_path, "a.csv", '"q", "a"\n"Who, me?", "You."\n"He", "said ""no"""\n')
    assert found.values == [{"q": "Who, me?", "a": "You."}, {"q": "He", "a": 'said "no"'}]
    assert found.told == ["a.csv has blanks before fields in quotation marks; they are taken for none of the text"]
    plain = read(tmp_path, "a.csv", 'q, a\nWho, "me"\n')  # where the header has no marks they are text
    assert (plain.values, plain.told) == ([{"q": "Who", " a": ' "me"'}], [])
