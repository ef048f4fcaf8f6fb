"""Markdown as the Hub renders it: numbers, aligned tables and folded blocks.

Usage: `table(stages, {"Stage": lambda s: s.name, "Tokens": lambda s: number(s.tokens)})`.

It formats values and knows nothing of chains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
MISSING = "—"
SHORT = 12  # hex digits of a digest that are shown


def percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f}%"


def points(share: float) -> str:
    """Return a difference of two shares in percentage points, with its sign and no negative zero."""
    value = round(100 * share, 1) + 0.0
    return f"{value:+.1f}" if value else "0.0"


def relative(change: float | None) -> str:
    """Return a relative change in percent, with its sign and no negative zero."""
    return MISSING if change is None else f"{points(change)}%"


def code(name: object) -> str:
    return f"`{name}`" if name else MISSING


def interval(result: Mapping[str, Any] | None) -> str:
    """Return `78.3% [73.2%, 82.7%]` for a score with its interval."""
    if result is None:
        return MISSING
    return f"{percent(result['score'])} [{percent(result['low'])}, {percent(result['high'])}]"


def change_interval(change: float, low: float | None, high: float | None) -> str:
    """Return `-12.4% [-13.0%, -11.8%]` for a relative change, without brackets where no interval is known."""
    return relative(change) + ("" if low is None else f" [{relative(low)}, {relative(high)}]")


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
    widths = [max(3, *(len(row[i]) for row in [list(columns), *cells])) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        padded = [c.ljust(w) if i < text else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * w if i < text else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(map(line, [list(columns), rule, *cells]))


def details(summary: str, language: str, text: str) -> str:
    """Return a folded block with code in it."""
    return f"<details>\n<summary>{summary}</summary>\n\n```{language}\n{text.rstrip()}\n```\n\n</details>"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
