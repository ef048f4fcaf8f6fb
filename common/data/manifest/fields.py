"""The columns of some records of one file, by their names in small letters, with the values that they hold.

Usage: `fields = Fields(records, each=None)`; `fields.holds("question", str)`; `fields.column("question")`.

It asks what is there. What that makes of a file is `common.data.manifest.recognition`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from common.data.manifest.calls import parsed
from common.data.manifest.messages import is_conversation, is_message

Types = type | tuple[type, ...]
CONVERSATIONS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns", "contents")
NUMBER_OR_TEXT = (str, int, float)


class Unclear(Exception):
    """The records can be read in no way, or in several; the message says which columns are in doubt."""


class Fields:
    """Columns by simple name. Of `each` its items' own columns come first."""

    def __init__(self, records: Sequence[Mapping[str, Any]], each: str | None = None) -> None:
        self.names: dict[str, str] = {}  # simple name -> column as it is reached in a record
        self._rows: dict[str, list[Any]] = {}
        self._parsed: dict[str, list[Any]] = {}
        self.num_records = len(records)
        for number, record in enumerate(records):
            item = record.get(each) if each is not None else None
            inner = {f"{each}.{key}": value for key, value in item.items()} if isinstance(item, Mapping) else {}
            for column, value in (*inner.items(), *record.items()):
                simple = column.removeprefix(f"{each}.") if column in inner else column
                name = simple.strip().casefold().replace(" ", "_").replace("-", "_")
                if self.names.setdefault(name, column) == column:
                    self._rows.setdefault(name, [None] * len(records))[number] = value

    def without(self, columns: Collection[Any]) -> Fields:
        """Return the columns that are not among some, which a manifest has named already."""
        named = {name for column in columns for name in ([column] if isinstance(column, str) else column)}
        rest = Fields([])
        rest.names = {name: column for name, column in self.names.items() if column not in named}
        rest._rows, rest._parsed, rest.num_records = self._rows, self._parsed, self.num_records
        return rest

    def column(self, name: str) -> str:
        return self.names[name]

    def columns(self, names: Sequence[str]) -> str | tuple[str, ...]:
        """Return one column as such, several as the list that a manifest has for them."""
        return self.column(names[0]) if len(names) == 1 else tuple(map(self.column, names))

    def values(self, name: str) -> list[Any]:
        """Return what a column holds, as far as it holds anything; lists and objects in strings are read."""
        return [value for value in self.rows(name) if value is not None]

    def rows(self, name: str) -> list[Any]:
        """Return what a column holds by record; None where it holds nothing."""
        if name not in self.names:
            return [None] * self.num_records
        if name not in self._parsed:
            self._parsed[name] = [parsed(value) for value in self._rows[name]]
        return self._parsed[name]

    def _raw(self, name: str) -> list[Any]:
        return self._rows[name] if name in self.names else [None] * self.num_records

    def fits(self, name: str, types: Types) -> bool:
        """Whether there is such a column, and hardly anything in it is of another type.

        A text that holds a list or an object is both, since an answer may be written in JSON.
        """
        either = zip(self._raw(name), self.rows(name), strict=True)
        return name in self.names and _mostly(
            [isinstance(raw, types) or isinstance(value, types) for raw, value in either if value is not None]
        )

    def holds(self, name: str, types: Types) -> bool:
        """Whether there is such a column with values, nearly all of these types."""
        return bool(self.values(name)) and self.fits(name, types)

    def first(self, names: Sequence[str], types: Types = object) -> str | None:
        """Return the first of some names that is a column with values of these types."""
        return next((name for name in names if self.holds(name, types)), None)

    def is_conversation(self, name: str) -> bool:
        """Whether nearly all values of a column are lists of messages, or empty.

        Questions with answers are turns of one conversation only where the name of the column says so: else each may be
        for itself.
        """
        pairs = name in CONVERSATIONS
        values = [value for value in self._raw(name) if value is not None and value not in ("", [])]
        return bool(values) and _mostly([is_conversation(value, pairs=pairs) for value in values])

    def is_answer(self, name: str) -> bool:
        """Whether nearly all values of a column are texts, messages or lists of them."""
        values = [value for value in self._raw(name) if value is not None]
        fitting = [isinstance(value, str) or is_message(value) or is_conversation(value) for value in values]
        return bool(values) and _mostly(fitting)

    def conversations(self) -> list[str]:
        return [name for name in self.names if self.is_conversation(name)]

    def both(self, names: Sequence[str]) -> str:
        """Name columns in a sentence."""
        return " and ".join(f"'{self.column(name)}'" for name in names)


def _mostly(fitting: Sequence[bool]) -> bool:
    """Whether at most a tenth of some values do not fit: those few are counted when rows are read."""
    return sum(fitting) * 10 >= len(fitting) * 9
