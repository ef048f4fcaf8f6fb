"""Leave out rows from before or after some days, by the column that their source names as their date.

Usage: in a manifest, `columns: {text: body, date: published}` for the source, and
`blocks: [{dates: {first: 2015, last: 2023-06, missing: drop}}]`.

It reads what `common.data.dates` reads. A row that says its year or month alone must lie in the range with all of its
days, so that nothing later than `last` can be in it. A date in the text itself is not looked for.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from common.config.blocks import ALL, Block, BlockContext, BlockSettings, Drop, Row, RowFunction
from common.data.dates import Period, period


def _as_text(value: Any) -> Any:
    """Return a date as text: YAML reads 2020 as a number and 2020-01-31 as a date."""
    if isinstance(value, date) or (isinstance(value, int) and not isinstance(value, bool)):
        value = str(value)
    if isinstance(value, str) and period(value) is None:
        raise ValueError(f"{value!r} is no date; expected a day, month or year, as 2021-03-31, 2021-03 or 2021")
    return value


Day = Annotated[str, BeforeValidator(_as_text)]


class DatesSettings(BlockSettings):
    """The range of dates to keep."""

    first: Day | None = Field(None, description="first day, month or year to keep, as 2015-06-30, 2015-06 or 2015")
    last: Day | None = Field(None, description="last day, month or year to keep, that one included")
    missing: Literal["keep", "drop"] = Field("keep", description="rows without a date, or with one that cannot be read")

    @model_validator(mode="after")
    def _is_range(self) -> DatesSettings:
        if self.first is None and self.last is None and self.missing == "keep":
            raise ValueError("dates needs first or last, or missing: drop")
        if self.first is not None and self.last is not None and _days(self.first)[0] > _days(self.last)[1]:
            raise ValueError(f"first is {self.first}, which is after last, {self.last}")
        return self


def start(settings: DatesSettings, context: BlockContext) -> RowFunction:
    """Return what judges a row by its date."""
    first = date.min if settings.first is None else _days(settings.first)[0]
    last = date.max if settings.last is None else _days(settings.last)[1]

    def judge(row: Row) -> Row | Drop:
        value = row.get("date")
        found = period(value)
        if found is None:
            if settings.missing == "keep":
                return row
            return Drop("no date") if value is None else Drop("date cannot be read", str(value)[:80])
        if found[0] < first:
            return Drop("before the first date", str(value))
        return Drop("after the last date", str(value)) if found[1] > last else row

    return judge


def _days(text: str) -> Period:
    """Return the first and the last day of a date, month or year."""
    found = period(text)
    assert found is not None, "the settings were checked"
    return found


BLOCK = Block(
    name="dates", settings=DatesSettings, start=start, rows=ALL, phrase="rows from before or after some days",
    paper="Longpre et al. 2023, A Pretrainer's Guide to Training Data, arXiv:2305.13169, section 4",
)  # fmt: skip
