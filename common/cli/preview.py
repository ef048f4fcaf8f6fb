"""Print rows as they are trained: tokens with loss in colour, or in brackets where there is none.

Usage: `show_stage(resolved, "sft", read_asked("5", "1", None), console, full=False)`; or `show(preview, console)`.

Texts of rows are data: they are wrapped to the terminal, and nothing in them moves its cursor.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from common.cli.output import short_path, table
from common.config.resolve import Resolved
from common.console import Console
from common.errors import ConfigError, quoted
from common.report.preview_page import page_file, write_page
from common.report.views import CONTEXT, Part, Preview, Token, View, rows_of_table, shown, without_secrets

WIDTH = 100  # columns where there is no terminal
LEAST = 24  # columns of a text
INDENT = "     "
HEAD, TAIL = 300, 100  # tokens of a long part that are shown
MOST_ROWS = 200
LOSS, OTHER_LOSS, MASKED, OF_CONTEXT, CONTROL = "bold green", "green underline", "dim", "yellow", "cyan"

SIGNS = "· is a blank, ⏎ a line end, → a tab; \\x1b and the like are characters that cannot be seen."
QUOTE = 100  # characters of a dropped row
Line = list[tuple[str, str]]  # texts and their styles


class Marks(NamedTuple):
    """What stands around tokens with loss and before control tokens where no colour tells them."""

    opening: str = ""
    closing: str = ""
    control: str = ""


COLOURED, PLAIN, ASCII = Marks(), Marks("⟦", "⟧", "◆"), Marks("[[", "]]", "@")


class Asked(NamedTuple):
    """Which rows are asked for, and where they go: to a page, or else to the terminal."""

    number: int
    at: int
    page: Path | None


def read_asked(rows: str, at: str, html: str | None) -> Asked:
    """Read the options of the command. Raises ConfigError."""
    return Asked(_whole("rows", rows, MOST_ROWS), _whole("at", at), None if html is None else page_file(html))


def show_stage(resolved: Resolved, stage: str, asked: Asked, console: Console, *, full: bool) -> None:
    """Print rows of a stage, or write a page of them and print the accounts alone."""
    from common.engine.preview.stage_rows import preview_stage

    preview = preview_stage(resolved, stage, at=asked.at, number=asked.number, full=full)
    if asked.page is None:
        show(preview, console)
        return
    write_page(asked.page, preview, resolved.config.domain)
    console.line(preview.title, always=True)
    show_accounts(preview, console)
    console.line(f"Written: {short_path(asked.page)}", always=True)


def _whole(name: str, value: str, most: int | None = None) -> int:
    """Return a whole number above 0 of the command line. Raises ConfigError."""
    upper = "" if most is None else f" to {most}"
    if not (value.isascii() and value.isdigit() and len(value) < 16 and 0 < int(value) <= (most or int(value))):
        raise ConfigError(f"{name}={quoted(value)}: expected a whole number from 1{upper}.")
    return int(value)


def show(preview: Preview, console: Console) -> None:
    """Print the rows, then the accounts of all rows."""
    columns = shutil.get_terminal_size((WIDTH, 24)).columns
    marks = marks_for(console)
    console.line(preview.title, always=True)
    how = f"in {marks.opening} {marks.closing}; {marks.control} begins a control token"
    if console.coloured:
        how = "green, in turns bold and underlined; control tokens are cyan, or reversed where they carry loss"
    _wrapped(f"Tokens that carry loss are {how}. {SIGNS}", columns, console)
    for note in preview.notes:
        _wrapped(f"{note.rstrip('.')}.", columns, console)
    for view in preview.views:
        console.line(always=True)
        _show_view(view, columns, marks, console)
    console.line(always=True)
    show_accounts(preview, console)


def marks_for(console: Console) -> Marks:
    """Return the marks that a console needs and can write."""
    if console.coloured:
        return COLOURED
    try:
        "".join(PLAIN).encode(getattr(console.stream or sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return PLAIN


def _wrapped(text: str, columns: int, console: Console, indent: str = "  ") -> None:
    for line in textwrap.wrap(text, max(LEAST, columns - len(indent)), break_on_hyphens=False):
        console.line(indent + line, always=True)


def _show_view(view: View, columns: int, marks: Marks, console: Console) -> None:
    console.spans([(view.title, "bold")])
    if masked := view.masked():
        _wrapped("without loss: " + ", ".join(f"{number:,} {why}" for why, number in masked.items()), columns, console)
    for part in view.parts:
        console.spans([(f"  {part.title}", "bold blue")])
        for note in part.notes:
            _wrapped(f"({note})", columns, console, INDENT)
        for line in lines_of(part, columns - len(INDENT), marks):
            console.spans([(INDENT, ""), *line])


def lines_of(part: Part, width: int, marks: Marks = COLOURED) -> list[Line]:
    """Return a part's tokens in lines of at most `width` cells; `marks` stand around those with loss in each line."""
    tokens = list(without_secrets(part).tokens)
    left_out = len(tokens) - HEAD - TAIL
    if left_out <= 0:
        return _laid_out(tokens, width, marks)
    more = f"… {left_out:,} tokens left out here; html=<file>.html shows them …"
    return [*_laid_out(tokens[:HEAD], width, marks), [(more, "italic")], *_laid_out(tokens[-TAIL:], width, marks)]


def _laid_out(tokens: Iterable[Token], width: int, marks: Marks) -> list[Line]:
    from rich.cells import cell_len, chop_cells

    width = max(LEAST, width)
    lines: list[Line] = [[]]
    used, within = 0, False  # cells of the last line, and whether its last token has loss
    edge = cell_len(marks.opening)

    def close() -> None:
        if within and edge and lines[-1]:
            lines[-1].append((marks.closing, ""))

    for number, token in enumerate(tokens):
        for place, piece in enumerate(shown((marks.control if token.special else "") + token.text)):
            if place:
                close()
                lines.append([])
                used, within = 0, False
            for chunk in chop_cells(piece, width - 2 * edge) if piece else ():
                size = cell_len(chunk)
                if used and used + size + 2 * edge > width:
                    close()
                    lines.append([])
                    used, within = 0, False
                if edge and token.learned != within:
                    lines[-1].append((marks.opening if token.learned else marks.closing, ""))
                    used += edge
                lines[-1].append((chunk, _style(token, number)))
                used, within = used + size, token.learned
    close()
    return [line for line in lines if line]


def _style(token: Token, number: int) -> str:
    """Return how a token is drawn: those with loss differ from their neighbours, so that one sees where each ends."""
    if token.learned:
        return f"{LOSS} reverse" if token.special else (LOSS, OTHER_LOSS)[number % 2]
    return CONTROL if token.special else OF_CONTEXT if token.why == CONTEXT else MASKED


def show_accounts(preview: Preview, console: Console) -> None:
    """Print the accounts of all rows by source, and what was dropped and changed."""
    header, rows = rows_of_table(preview)
    table(console, header, rows, numeric=range(2, len(header)), spare=1)
    for count in preview.counts:
        for what, number in count.changed.items():
            console.line(f"  changed, {count.source}: {what} ({number:,})", always=True)
        for reason, number in count.dropped.items():
            console.line(f"  dropped, {count.source}: {reason} ({number:,})", always=True)
            for text in preview.examples(count.source, reason):
                console.line(f"    {quoted(text, QUOTE)}", always=True)
