"""What a person sees while it runs: bars in a terminal, plain lines elsewhere, little when quiet.

Usage: `with console.progress("cpt", total, "tokens") as bar: bar.update(done)`.

Only the command line and this module print; library code logs. Bars appear for work of over two seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal

from common.errors import StoreError, cut, visible
from common.system.secrets import hide

Verbosity = Literal["quiet", "normal", "verbose"]
BAR_AFTER_SECONDS = 2.0
LINE_EVERY_SECONDS = 15.0
LONGEST_LINE = 2000  # characters; tables of many columns are wider than an error is long


class LogFormatter(logging.Formatter):
    """Writes a record's message as one line, whatever is quoted in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = cut(visible(hide(record.message), "\t"), LONGEST_LINE)
        return super().formatMessage(record)


class Bar:
    """Progress of one piece of work; `update` takes the amount done so far."""

    def __init__(self, label: str, total: int, unit: str, console: Console) -> None:
        self.label, self.total, self.unit, self.console = label, total, unit, console
        self.started = self.last_line = time.monotonic()
        self.first: int | None = None  # where a resumed run began, so that speed counts this run alone
        self.remark = ""
        self._live: Any = None  # rich.progress.Progress, once it is drawn
        self._task: Any = None

    def note(self, text: str) -> None:
        """Show a short remark, such as the loss, beside the bar."""
        self.remark = text

    def update(self, done: int) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = done
        if self.console.verbosity == "quiet" or now - self.started < BAR_AFTER_SECONDS:
            return
        if self.console.terminal:
            self._draw(done)
        elif now - self.last_line >= LINE_EVERY_SECONDS:
            self.last_line = now
            share = done / self.total if self.total else 1.0
            self.console.line(f"  {self.label}: {share:4.0%} of {self.total:,} {self.unit}{self._speed(done)}")

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()

    def _speed(self, done: int) -> str:
        speed = (done - (self.first or 0)) / max(time.monotonic() - self.started, 1e-9)
        remark = f", {self.remark}" if self.remark else ""
        return f", {speed:,.0f} {self.unit}/s{remark}"

    def _draw(self, done: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        if self._live is None:
            self._live = Progress(  # without markup: labels and remarks hold names that others chose
                TextColumn("  {task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[speed]}", markup=False), TimeRemainingColumn(), transient=True,
            )  # fmt: skip
            self._live.start()
            self._task = self._live.add_task(visible(self.label), total=self.total, speed="")
        self._live.update(self._task, completed=done, speed=visible(self._speed(done).removeprefix(", ")))


class Console:
    """Where lines go: standard output for results, standard error for errors."""

    def __init__(self, verbosity: Verbosity = "normal", stream: IO[str] | None = None) -> None:
        self.verbosity = verbosity
        self.stream = stream
        self.terminal = (stream or sys.stdout).isatty()

    def line(self, text: str = "", *, always: bool = False) -> None:
        """Print one line, whatever is quoted in it; `always` also when quiet."""
        if always or self.verbosity != "quiet":
            self._print(cut(visible(hide(text), "\t"), LONGEST_LINE))

    @property
    def coloured(self) -> bool:
        """Whether colours are shown: in a terminal that has them, unless the user wants none (no-color.org)."""
        return self.terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def spans(self, spans: Sequence[tuple[str, str]]) -> None:
        """Print one line made of texts and their styles, as rich names them, also when quiet; colours where shown."""
        whole = "".join(text for text, _ in spans)
        if not self.coloured or hide(whole) != whole:  # a secret may lie across several of them
            self._print(cut(visible(hide(whole)), LONGEST_LINE))
            return
        from rich.color import ColorSystem
        from rich.style import Style

        drawn = (
            Style.parse(style).render(visible(text), color_system=ColorSystem.STANDARD) if style else visible(text)
            for text, style in spans
        )
        self._print("".join(drawn))

    def lines(self, text: str) -> None:
        """Print a text that may have several lines, also when quiet."""
        self._print(visible(hide(text), "\t\n"))

    def _print(self, text: str) -> None:
        """Raises StoreError, or BrokenPipeError where nobody reads it."""
        try:
            print(text, file=self.stream or sys.stdout, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StoreError(f"What this command prints cannot be written: {error.strerror}.") from error

    @contextlib.contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Bar]:
        bar = Bar(label, total, unit, self)
        try:
            yield bar
        finally:
            bar.close()
