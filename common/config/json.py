"""Read a JSON file that anyone may have written: bounded in size and depth, and with one meaning; change its texts.

Usage: `facts = read_json(folder / "config.json", strict=False)`; `plan = read_json(path, advice="Plan it again.")`.

It reads and reports; what the keys mean is the caller's business. Rows of data are read by
`common.data.manifest.files`. Raises DataError with the file's name.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common.errors import DataError, cut, first_line, quoted
from common.system.files import MIB, read_text_file

LARGEST = 64 * MIB  # the tokenizers of today's largest vocabularies have 35
LARGEST_INT = 2**63  # arithmetic with larger ones fails, or takes for ever
# What code raises that reads a file of another form than it expects.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
DEEPEST = 100  # lists and objects inside each other; what is written to be read has fewer than 20


def every_text(value: Any, change: Callable[[str], str], *, keys: bool = True) -> Any:
    """Return a JSON-like value with every text in it changed, names of keys too, unless `keys` is false."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        inner = {key: every_text(item, change, keys=keys) for key, item in value.items()}
        return {change(key) if isinstance(key, str) else key: item for key, item in inner.items()} if keys else inner
    return [every_text(item, change, keys=keys) for item in value] if isinstance(value, list | tuple) else value


def read_json(path: Path, *, strict: bool = True, advice: str = "Copy or download it again.") -> Any:
    """Return the value of a JSON file. Raises DataError: missing, not UTF-8, not JSON, too large or too deep.

    `strict` also refuses what libraries accept in the files of checkpoints: a key that is given twice, NaN, Infinity.
    """
    text = read_text_file(path, largest=LARGEST)
    try:
        return parse_json(text, strict=strict)
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}. {advice}") from error


def parse_json(text: str, *, strict: bool = True) -> Any:
    """Return the value of a JSON text. Raises ValueError with the reason alone."""
    try:
        value = json.loads(text, **_STRICT) if strict else json.loads(text)
        deep = text.count("[") + text.count("{") > DEEPEST and depth_of(value) > DEEPEST
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        deep = True
    except ValueError as error:
        raise ValueError("a number of thousands of digits" if "integer string" in str(error) else str(error)) from None
    if deep:
        raise ValueError(f"more than {DEEPEST} lists and objects inside each other")
    if "\\ud" in text.lower():  # half of a pair of escapes is no character and cannot be written or shown
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("an escape such as \\ud800 that is half a character") from None
    return value


@contextlib.contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Read within it what a stage left in its own scratch: whatever fails there becomes a DataError that says so."""
    try:
        yield
    except UNREADABLE as error:
        raise DataError(
            f"{path} is not as the stage wrote it ({first_line(error)}). Remove the stage's folder below "
            "artifacts/.work and run the same command again: the stage starts over."
        ) from error


def depth_of(value: Any) -> int:
    """Return how many lists and mappings are inside each other, without recursion."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"key {quoted(twice)} is given twice")
    return made


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _int(text: str) -> int:
    if len(text) > 20 or abs(value := int(text)) > LARGEST_INT:
        raise ValueError(f"{cut(text, 60)} is too large a number")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{cut(text, 60)} is no finite number")
    return value


_STRICT: dict[str, Any] = {
    "object_pairs_hook": _object, "parse_constant": _refuse, "parse_float": _finite, "parse_int": _int,
}  # fmt: skip
