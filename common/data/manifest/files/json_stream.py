"""Read the items of a JSON document one at a time, so that memory holds an item and not the file.

Usage: `for item, twice in JsonStream(lines, "a.json").items(["data"]): ...`; `twice` is a key that it gives twice.

Values are decoded by Python's `json`; this walks only through the lists and objects around them. NaN, which pandas
writes for a missing value, becomes null.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from common.config.json import DEEPEST, depth_of
from common.errors import DataError, did_you_mean

ADVICE = "Repair the file, or convert it to .jsonl."
_BLANK = re.compile(r"[ \t\n\r]*")
_CHUNK = 2**16  # characters that are read at once, at least
_LONGEST_SIGN = 16  # characters: an error nearer to the end of what has been read may be a word or escape cut in two
Items = Iterator[tuple[Any, str | None]]


class Decoder:
    """Python's decoder, which also notes a key that an object gives twice; of one thread alone, as it notes."""

    def __init__(self) -> None:
        self._twice: str | None = None
        self._json = json.JSONDecoder(
            object_pairs_hook=self._object, parse_constant=lambda name: None if name == "NaN" else float(name)
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            times = Counter(name for name, _ in pairs)
            self._twice = next(name for name, number in times.items() if number > 1)
        return made

    def decode(self, text: str, start: int) -> tuple[Any, int, str | None]:
        """Return a value, where it ends, and a key that it gives twice."""
        self._twice = None
        value, end = self._json.raw_decode(text, start)
        if text.count("[", start, end) + text.count("{", start, end) > DEEPEST and depth_of(value) > DEEPEST:
            raise RecursionError
        return value, end, self._twice

    def parse(self, text: str, where: str, advice: str) -> tuple[Any, str | None]:
        """Return the value of a whole text, and a key that it gives twice. Raises DataError."""
        try:
            value, end, twice = self.decode(text, _skip(text, 0))
            if (end := _skip(text, end)) < len(text):
                raise json.JSONDecodeError("Extra data", text, end)
        except (ValueError, RecursionError) as error:
            raise _invalid(error, where, advice) from error
        return value, twice


def _skip(text: str, start: int) -> int:
    match = _BLANK.match(text, start)
    assert match is not None, "the pattern matches nothing too"
    return match.end()


def _invalid(error: Exception, where: str, advice: str, line: int = 1) -> DataError:
    if isinstance(error, json.JSONDecodeError):
        line += error.lineno - 1
        place = f", line {line}" if line > 1 else ""
        return DataError(f"{where}{place}: not valid JSON: {error.msg} (column {error.colno}). {advice}")
    what = str(error)
    if isinstance(error, RecursionError):
        what = f"more than {DEEPEST} lists and objects inside each other"
    elif "integer string" in what:
        what = "a number of thousands of digits"
    return DataError(f"{where}: not readable as JSON: {what}. {advice}")


class JsonStream:
    """A document whose text arrives piece by piece. Each of its methods reads it once, from the start."""

    def __init__(self, texts: Iterator[str], name: str) -> None:
        self._texts, self._name = texts, name
        self._text, self._at, self._ended = "", 0, False
        self._lines = 0  # line ends in front of `_text`
        self._decoder = Decoder()

    def items(self, path: list[str]) -> Items:
        """Yield the items of the list, or the values of the object, at a path of keys.

        With no path they are those of the list that the document is, or the values that follow one another in it.
        """
        for key in path:
            self._enter(key, path)
        if path and self._peek() == "{":
            yield from self.members()
        elif self._peek() == "[":
            yield from self._list()
            if not path and self._peek():
                raise self._wrong("Extra data")
        elif path:
            raise DataError(f"{self._name}: '{'.'.join(path)}' (records) is no list. Name a key that holds one.")
        else:
            while self._peek():
                yield self._value()

    def members(self) -> Items:
        """Yield the values of the object that comes next."""
        for _ in self._keys():
            yield self._value()

    def layout(self) -> dict[str, str] | None:
        """Return what the keys of the only object hold: objects, object, list or value; None for other documents."""
        if self._peek() != "{":
            return None
        kinds = {}
        for key in self._keys():
            if self._peek() == "[":
                item, kind = None, "list"
                for number, (item, _) in enumerate(self._list()):
                    kind = "objects" if number == 0 and isinstance(item, dict) else kind
            else:
                kind = "object" if isinstance(self._value()[0], dict) else "value"
            kinds[key] = kind
        return None if self._peek() else kinds

    def _enter(self, key: str, path: list[str]) -> None:
        """Go to the value of a key of the object that comes next. Raises DataError where it has none."""
        known = []
        if self._peek() == "{":
            for name in self._keys():
                if name == key:
                    return
                known.append(name)
                self._value()
        raise DataError(f"{self._name}: there is no '{key}' for records: {'.'.join(path)}.{did_you_mean(key, known)}")

    def _keys(self) -> Iterator[str]:
        """Yield the keys of an object; who asks for the next one has read the value before it."""
        for _ in self._places("{", "}"):
            if self._peek() != '"':
                raise self._wrong("Expecting property name enclosed in double quotes")
            key = str(self._value()[0])
            self._take(":")
            yield key

    def _list(self) -> Items:
        for _ in self._places("[", "]"):
            yield self._value()

    def _places(self, begin: str, end: str) -> Iterator[None]:
        """Yield at each item between two signs; who asks for the next place has read the item at this one."""
        self._take(begin)
        if self._peek() != end:
            yield
            while self._peek() != end:
                self._take(",")
                yield
        self._take(end)

    def _peek(self) -> str:
        """Return the next character that is no blank, or '' at the end."""
        while True:
            self._at = _skip(self._text, self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def _take(self, sign: str) -> None:
        if self._peek() != sign:
            raise self._wrong(f"Expecting '{sign}'")
        self._at += 1

    def _value(self) -> tuple[Any, str | None]:
        self._peek()
        while True:
            try:
                value, end, twice = self._decoder.decode(self._text, self._at)
                if self._ended or end + _LONGEST_SIGN <= len(self._text):  # digits at the end may be half a number
                    self._at = end
                    return value, twice
                self._read()
            except json.JSONDecodeError as error:
                cut = error.pos > len(self._text) - _LONGEST_SIGN or error.msg.startswith("Unterminated")
                if self._ended or not cut:
                    raise _invalid(error, self._name, ADVICE, self._lines + 1) from error
                self._read()
            except (ValueError, RecursionError) as error:
                raise _invalid(error, self._name, ADVICE) from error

    def _read(self) -> bool:
        """Add as many characters again as are held, and forget those before the next value. False at the end."""
        self._lines += self._text.count("\n", 0, self._at)
        held = [self._text[self._at :]]
        self._at, size, wanted = 0, 0, max(_CHUNK, len(held[0]))
        for text in self._texts:
            held.append(text)
            size += len(text)
            if size >= wanted:
                break
        self._text = "".join(held)
        self._ended = size == 0
        return not self._ended

    def _wrong(self, message: str) -> DataError:
        return _invalid(json.JSONDecodeError(message, self._text, self._at), self._name, ADVICE, self._lines + 1)
