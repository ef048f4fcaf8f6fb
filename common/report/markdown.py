"""Markdown as the Hub renders it: text of others as text, numbers, aligned tables and folded blocks.

Usage: `table(stages, {"Stage": lambda s: plain(s.name), "Tokens": lambda s: number(s.tokens)})`.

It formats values and knows nothing of chains. Whatever a chain did not write itself goes through `plain`, `prose`,
`code` or `details`: titles, licences, notes, names and reasons become no heading, link, picture, formula or tag.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from common.errors import cut, visible

T = TypeVar("T")
MISSING = "—"
SHORT = 12  # hex digits of a digest that are shown
LONGEST = 300  # characters of a text on one line that others wrote
LONGEST_PROSE, LONGEST_BLOCK = 20_000, 200_000
# What means something anywhere in a line (underscores only beside a blank or sign), and what does at its start.
INSIDE = re.compile(r"[\\`*\[\]<>|~$]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
AT_START = re.compile(r"^(\d{0,9})([#+=.)-])(?=[\s#+=-]|$)")


def percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f}%"


def points(share: float) -> str:
    """Return a difference of two shares in percentage points, with its sign and no negative zero."""
    value = round(100 * share, 1) + 0.0
    return f"{value:+.1f}" if value else "0.0"


def relative(change: float | None) -> str:
    """Return a relative change in percent, with its sign and no negative zero."""
    return MISSING if change is None else f"{points(change)}%"


def one_line(text: object, most: int = LONGEST) -> str:
    """Return what others wrote on one line, cut, with nothing invisible in it."""
    return cut(visible(" ".join(str(text).split())), most)


def plain(text: object, most: int = LONGEST) -> str:
    """Return what others wrote so that it is read as it stands: on one line, without markup."""
    line = INSIDE.sub(lambda found: f"\\{found[0]}", one_line(text, most))
    return AT_START.sub(r"\1\\\2", line)


def prose(text: str) -> str:
    """Return the paragraphs and lines that others wrote so that they are read as they stand."""
    return "\n".join(plain(line, LONGEST_PROSE) for line in cut(text, LONGEST_PROSE).splitlines())


def code(name: object) -> str:
    """Return a name as code, whatever is in it; a dash for none."""
    text = one_line(name or "")
    fence = _fence(text, 1)
    blank = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{blank}{text}{blank}{fence}" if text else MISSING


def _fence(text: str, least: int) -> str:
    """Return more backticks than a text has in a row."""
    return "`" * max(least, *(len(run) + 1 for run in re.findall("`+", text)), 1)


def interval(result: Mapping[str, Any] | None) -> str:
    """Return `78.3% [73.2%, 82.7%]` for a score with its interval."""
    if result is None:
        return MISSING
    return f"{percent(result['score'])} [{percent(result['low'])}, {percent(result['high'])}]"


def change_interval(change: float, low: float | None, high: float | None) -> str:
    """Return `-12.4% [-13.0%, -11.8%]` for a relative change, without brackets where no interval is known."""
    return relative(change) + ("" if low is None else f" [{relative(low)}, {relative(high)}]")


def points_range(difference: float, low: float | None, high: float | None, unit: str = "") -> str:
    """Return `+1.2 [-0.3, +2.7]` for a difference of two shares, without brackets where no interval is known."""
    ends = "" if low is None or high is None else f" [{points(low)}, {points(high)}]"
    return f"{points(difference)}{unit}{ends}"


def bits_range(value: float | None, facts: Mapping[str, Any] | None) -> str:
    """Return `1.234 [1.200, 1.268]` for bits per byte, without brackets where a single document has no interval."""
    low, high = ((facts or {}).get(end) for end in ("low", "high"))
    return number(value, 3) + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def shows_no_change(change: float, low: float | None, high: float | None) -> bool:
    """Whether a change is 0 as `change_interval` prints it, or the printed interval of a change ends at 0."""
    printed = [round(100 * value, 1) for value in (change, low, high) if value is not None]
    return 0 in printed


def p_value(p: float) -> str:
    """Return `< 0.001`, `0.031` or `0.50`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def number(value: float | None, digits: int = 0) -> str:
    """Return a count with thousands separators; zero and missing values as a dash."""
    return f"{value:,.{digits}f}" if value else MISSING


def duration(seconds: float | None) -> str:
    """Return `1 h 03 min`, `4 min 05 s` or `12.3 s`."""
    if not seconds:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def short(digest: Any) -> str:
    """Return the first digits of a digest or revision as code; other revisions, such as tags, whole."""
    text = str(digest or "").removeprefix("sha256:")
    return code(text[:SHORT] if set(text) <= set("0123456789abcdef") else text)


def table(rows: Iterable[T], columns: Mapping[str, Callable[[T], str]], text: int = 1) -> str:
    """Return a table with a column per head, or nothing without rows.

    Columns line up in the source too. The first `text` columns are left-aligned, the others right-aligned.
    """
    cells = [[_cell(value(row)) for value in columns.values()] for row in rows]
    if not cells:
        return ""
    heads = [_cell(head) for head in columns]
    widths = [max(3, *(len(row[i]) for row in [heads, *cells])) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        padded = [c.ljust(w) if i < text else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * w if i < text else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(map(line, [heads, rule, *cells]))


def details(summary: str, language: str, text: str) -> str:
    """Return a folded block with code in it."""
    text = cut(visible(text, "\n\t"), LONGEST_BLOCK).rstrip()
    fence = _fence(text, 3)
    head = html.escape(one_line(summary))
    return f"<details>\n<summary>{head}</summary>\n\n{fence}{language}\n{text}\n{fence}\n\n</details>"


def _cell(text: str) -> str:
    """Return a cell on one line; a bar in it, escaped or not, begins no other."""
    return re.sub(r"\\?\|", r"\\|", " ".join(str(text).split()))
