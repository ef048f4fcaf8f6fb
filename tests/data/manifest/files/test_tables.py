"""Tables as spreadsheets, databases and scripts write them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from common.errors import DataError
from tests.data.manifest.files.reading import read

ROWS = [(f"What is tool {number} used for?", f"Tool {number} is used for work, mostly.") for number in range(33)]


def test_a_quote_that_opens_in_one_row_and_closes_in_another_is_text_in_a_tsv(tmp_path: Path) -> None:
    rows = [list(row) for row in ROWS]
    rows[4][1], rows[6][1] = '"A rule of 5 inches', 'It is 5" long"'
    found = read(tmp_path, "a.tsv", "q\ta\n" + "".join("\t".join(row) + "\n" for row in rows))
    assert [list(value.values()) for value in found.values] == rows
    assert (found.flaws, found.told) == ([], [])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (['"one\ttwo"', '"three\nfour"'], {"q": "one\ttwo", "a": "three\nfour"}),
        (["one", '"<p class=""a"">two</p>"'], {"q": "one", "a": '<p class="a">two</p>'}),
    ],
)
def test_quoting_of_a_tsv_is_found_where_its_rows_show_it(
    tmp_path: Path, fields: list[str], expected: dict[str, str]
) -> None:
    content = "q\ta\n" + "".join("\t".join(row) + "\n" for row in [*ROWS[:5], fields, *ROWS[:5]])
    found = read(tmp_path, "a.tsv", content)
    assert found.values[5] == expected
    assert (len(found.values), found.flaws) == (11, [])
    assert found.told == ["a.tsv is read with quotation marks around fields. quoting: false takes them as they stand"]
    # One mark that stands alone, and the marks are text again.
    found = read(tmp_path, "a.tsv", content + '"5 inch rule\tlong\n')
    assert found.told != ["a.tsv is read with quotation marks around fields. quoting: false takes them as they stand"]
    assert found.values[-1] == {"q": '"5 inch rule', "a": "long"}
    assert read(tmp_path, "a.tsv", content, quoting=False).values[5] != expected


def test_quoting_of_a_tsv_is_asked_for(tmp_path: Path) -> None:
    content = 'q\ta\n"one\ttwo"\t"three\nfour"\n'
    found = read(tmp_path, "a.tsv", content, quoting=True)
    assert found.values == [{"q": "one\ttwo", "a": "three\nfour"}]
    found = read(tmp_path, "a.tsv", 'q\ta\n"one, two"\t3\n')
    assert found.values == [{"q": '"one, two"', "a": "3"}]
    assert found.told == [
        "a.tsv has fields in quotation marks, which are read as they stand. If the marks only wrap the fields, set "
        "quoting: true"
    ]


def test_a_row_that_does_not_fit_is_lost_alone_and_names_its_place(tmp_path: Path) -> None:
    found = read(tmp_path, "a.csv", "q,a\n1,2\n\n1,2,3\n4,5\n")
    assert found.values == [{"q": "1", "a": "2"}, {"q": "4", "a": "5"}]
    assert found.reasons == ["wrong number of fields"]
    assert found.flaws == ["a.csv, line 4: has 3 fields, the header has 2. Quote fields that hold commas or line ends"]
    found = read(tmp_path, "a.tsv", "q\ta\n1\n")
    assert found.flaws == [
        "a.tsv, line 2: has 1 fields, the header has 2. Fields in quotation marks that hold tabs or line ends need "
        "quoting: true"
    ]


def test_a_stray_quote_of_a_csv_spoils_its_own_line_alone(tmp_path: Path) -> None:
    for stray in ('"never closed,x', '"5 inch" rule,x'):
        found = read(tmp_path, "a.csv", f'q,a\n1,2\n{stray}\n3,4\n"5, five",6\n7,8\n')
        assert [value["q"] for value in found.values] == ["1", "3", "5, five", "7"]
        assert found.reasons == ["not valid CSV"]
        assert found.flaws[0].startswith("a.csv, line 3: not valid CSV")
    found = read(tmp_path, "a.csv", 'q,a\n1,2\n"1,2\n')
    assert found.flaws == ["a.csv, line 3: not valid CSV: unexpected end of data. Look for an unclosed quote"]


def test_line_ends_within_quotes_are_kept(tmp_path: Path) -> None:
    found = read(tmp_path, "a.csv", 'q,a\r\n"one\r\n\r\ntwo",x\r\n"3",y\r\n')
    assert [value["q"] for value in found.values] == ["one\r\n\r\ntwo", "3"]
    assert [record.where for record in found.records] == ["a.csv, line 2", "a.csv, line 5"]


def test_nul_bytes_are_told(tmp_path: Path) -> None:
    found = read(tmp_path, "a.csv", b"q,a\n1,2\nx\0,\0\0\n")
    assert (found.values, found.reasons) == ([{"q": "1", "a": "2"}], ["NUL bytes"])
    found = read(tmp_path, "a.txt", b"one\n" + b"\0" * 3 + b"\ntwo\n", unit="line")
    assert ([value["text"] for value in found.values], found.reasons) == (["one", "two"], ["NUL bytes"])


def test_a_header_that_names_a_column_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv, line 1: the header names \['q'\] more than once"):
        read(tmp_path, "a.csv", "q,q\n1,2\n")


def test_a_header_of_many_columns_costs_no_time_for_each_pair_of_them(tmp_path: Path) -> None:
    started = time.process_time()
    header = ",".join(f"c{number}" for number in range(50_000))
    with pytest.raises(DataError, match=r"the header names \['c7'\] more than once"):
        read(tmp_path, "a.csv", f"{header},c7\n")
    keys = ", ".join(f'"c{number}": 1' for number in range(50_000))
    assert "has the key 'c49999' more than once" in read(tmp_path, "a.jsonl", f'{{{keys}, "c49999": 2}}\n').flaws[0]
    assert time.process_time() - started < 5


@pytest.mark.parametrize(("name", "sign"), [("a.tsv", "\t"), ("a.csv", ",")])
def test_the_null_of_databases_is_null_and_no_text(name: str, sign: str, tmp_path: Path) -> None:
    rows = [["q", "a"], ["one", "\\N"], ["\\Name", "a \\N"], ["\\N", "two"]]
    found = read(tmp_path, name, "".join(sign.join(row) + "\n" for row in rows))
    assert found.values == [{"q": "one", "a": None}, {"q": "\\Name", "a": "a \\N"}, {"q": None, "a": "two"}]
    assert found.flaws == []


def test_columns_without_a_name_are_as_excel_leaves_them_on_the_right(tmp_path: Path) -> None:
    found = read(tmp_path, "a.csv", "q;a;;;\n1;2;;x;\n", columns=("q", "a"))
    nameless = {f"column {place} without a name": text for place, text in ((3, ""), (4, "x"), (5, ""))}
    assert found.values == [{"q": "1", "a": "2"} | nameless]
    with pytest.raises(DataError, match="It looks like a title"):
        read(tmp_path, "a.csv", "A list;;\nq;a;b\n")
