"""Dates as files have them: read, or refused where they could mean two days."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.dates import period

DAY = date(2021, 3, 4)


@pytest.mark.parametrize(
    "value",
    [
        "2021-03-04", "2021-03-04T10:00:00Z", "2021-03-04 10:00:00.123", "20210304", 20210304, "2021/03/04",
        "2021-03-05T01:00:00+09:00", "Thu, 04 Mar 2021 10:00:00 +0000", 1614855600, 1614855600.5, "1614855600",
        1614855600000, " 2021-03-04 ", datetime(2021, 3, 4, 10, tzinfo=UTC), DAY,
    ],
)  # fmt: skip
def test_a_day_is_read(value: Any) -> None:
    assert period(value) == (DAY, DAY)


@pytest.mark.parametrize("value", ["2021", 2021, 2021.0])
def test_a_year_stands_for_all_of_its_days(value: Any) -> None:
    assert period(value) == (date(2021, 1, 1), date(2021, 12, 31))


def test_a_month_stands_for_all_of_its_days() -> None:
    assert period("2024-02") == (date(2024, 2, 1), date(2024, 2, 29))


@pytest.mark.parametrize(
    "value",
    [
        "03/04/2021", "yesterday", "", None, True, [], {}, float("nan"), float("inf"), -1, 0, "2021-13", "2021-02-30",
        7, 20211399, "0000", 10**30, "9" * 70, "12:30",
    ],
)  # fmt: skip
def test_what_is_no_single_day_is_not_read(value: Any) -> None:
    assert period(value) is None


@given(st.dates())
def test_every_day_is_read_as_itself(day: date) -> None:
    assert period(day.isoformat()) == (day, day)


@given(st.one_of(st.text(max_size=80), st.floats(), st.integers(), st.booleans(), st.none()))
def test_nothing_that_a_file_may_hold_is_an_error(value: Any) -> None:
    found = period(value)
    assert found is None or found[0] <= found[1]
