"""Read the date of a row as files have it: ISO 8601, a year or month, mail headers, seconds since 1970.

Usage: `period("2021-03") == (date(2021, 3, 1), date(2021, 3, 31))`; None for what is no date.

A value that leaves out the day stands for all of its days. Dates such as 03/04/2021, which two countries read in two
ways, are not read.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any

Period = tuple[date, date]  # first and last day
_YEAR, _MONTH, _DAY = re.compile(r"\d{4}"), re.compile(r"(\d{4})-(\d{1,2})"), re.compile(r"(\d{4})(\d{2})(\d{2})")
_NUMBER = re.compile(r"-?\d{1,20}(?:\.\d+)?")
_FIRST_SECONDS = 10**8  # since 1970; a smaller number may be a year or a day
_MILLISECONDS = 10**11  # from here on: no row is from the year 5138
LONGEST = 64


def period(value: Any) -> Period | None:
    """Return the first and last day that a value stands for, in UTC where it says a zone; None where it is no date."""
    if isinstance(value, datetime):
        return _day(value)
    if isinstance(value, date):
        return value, value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _of_number(value)
    if not isinstance(value, str) or len(value := value.strip()) > LONGEST:
        return None
    if _NUMBER.fullmatch(value):
        return _of_number(float(value) if "." in value else int(value))
    if found := _MONTH.fullmatch(value):
        return _month(int(found[1]), int(found[2]))
    for read in (_iso, parsedate_to_datetime):
        try:
            return _day(read(value))
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None


def _iso(value: str) -> datetime:
    parts = value.replace("/", "-", 2) if value[4:5] == "/" else value
    return datetime.fromisoformat(parts)


def _of_number(value: float) -> Period | None:
    """Read a number as a year, as a day without signs between its parts, or as seconds or milliseconds since 1970."""
    whole = str(int(value)) if value == value and abs(value) < 10**18 and value == int(value) else ""
    if _YEAR.fullmatch(whole):
        return (date(int(whole), 1, 1), date(int(whole), 12, 31)) if int(whole) else None
    if found := _DAY.fullmatch(whole):
        try:
            day = date(int(found[1]), int(found[2]), int(found[3]))
        except ValueError:
            return None
        return day, day
    if not _FIRST_SECONDS <= abs(value) < 10**15:
        return None
    try:
        return _day(datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS else value, UTC))
    except (ValueError, OverflowError, OSError):
        return None


def _month(year: int, month: int) -> Period | None:
    if not (year and 1 <= month <= 12):
        return None
    return date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])


def _day(value: datetime) -> Period:
    day = (value.astimezone(UTC) if value.tzinfo is not None else value).date()
    return day, day
