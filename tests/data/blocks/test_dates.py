"""Rows by their date: a range with both ends, and rows that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.config.blocks import ALL, block_of, checked
from tests.data.blocks.driving import applied, reason


def found(folder: Path, *dates: Any, **settings: Any) -> list[str | None]:
    rows = [{"text": "a", "source": "web", **({} if value is None else {"date": value})} for value in dates]
    return [reason(row) for row in applied("dates", rows, folder, **settings)]


def test_both_ends_belong_to_the_range(tmp_path: Path) -> None:
    dates = ["2014-12-31", "2015-01-01", 1434000000, "2023-06-30", "2023-07-01"]
    assert found(tmp_path, *dates, first=2015, last="2023-06") == [
        "before the first date", None, None, None, "after the last date"
    ]  # fmt: skip
    assert found(tmp_path, *dates, first="2015") == ["before the first date", None, None, None, None]
    assert found(tmp_path, *dates, last="2015-01-01") == [None, None, *["after the last date"] * 3]


def test_a_year_must_lie_in_the_range_with_all_of_its_days(tmp_path: Path) -> None:
    years = ["2020", "2021", "2022"]
    assert found(tmp_path, *years, first="2020-06", last="2022-06") == [
        "before the first date", None, "after the last date"
    ]  # fmt: skip


def test_rows_without_a_date_stay_unless_asked(tmp_path: Path) -> None:
    assert found(tmp_path, None, "soon", first=2015) == [None, None]
    assert found(tmp_path, None, "soon", first=2015, missing="drop") == ["no date", "date cannot be read"]
    assert found(tmp_path, None, "2020", missing="drop") == ["no date", None]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "dates needs first or last, or missing: drop"),
        ({"first": "2020", "last": "2019"}, "first is 2020, which is after last, 2019"),
        ({"first": "03/04/2020"}, "'03/04/2020' is no date; expected a day, month or year"),
    ],
)
def test_a_range_that_is_none_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked([{"dates": settings}])


def test_all_kinds_of_rows_have_dates() -> None:
    assert tuple(block_of("dates").rows) == ALL
