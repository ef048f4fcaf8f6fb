"""Markdown as the Hub renders it: numbers, aligned tables and folded blocks.

Usage: `table(["checkpoint", "tokens"], [["base", number(1000)]], right=[1])`.

It formats values that it is given and knows nothing of chains.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

MISSING = "—"
SHORT = 12  # hex digits of a digest that are shown


def percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f}%"


def points(share: float) -> str:
    """Return a difference of two shares in percentage points, with its sign and no negative zero."""
    value = round(100 * share, 1) + 0.0
    return f"{value:+.1f}" if value else "0.0"


def interval(result: Mapping[str, Any] | None) -> str:
    """Return `78.3% [73.2%, 82.7%]` for a score with its interval."""
    if result is None:
        return MISSING
    return f"{percent(result['score'])} [{percent(result['low'])}, {percent(result['high'])}]"


def p_value(p: float) -> str:
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


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
    if not digest:
        return MISSING
    text = str(digest).removeprefix("sha256:")
    is_hex = all(c in "0123456789abcdef" for c in text)
    return f"`{text[:SHORT] if is_hex else text}`"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Return a table whose columns line up in the source too; columns in `right` are right-aligned."""
    cells = [[_cell(c) for c in row] for row in (heads, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        padded = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "| " + " | ".join(padded) + " |"

    rule = [("-" * (w - 1) + ":") if i in right else "-" * w for i, w in enumerate(widths)]
    return "\n".join([line(cells[0]), line(rule), *(line(row) for row in cells[1:])])


def details(summary: str, language: str, text: str) -> str:
    """Return a folded block with code in it."""
    return f"<details>\n<summary>{summary}</summary>\n\n```{language}\n{text.rstrip()}\n```\n\n</details>"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
