"""What is printed: one call, one line, whatever is quoted in it."""

from __future__ import annotations

import io
import logging

from common.console import Bar, Console, LogFormatter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_is_one_line_and_nothing_obeys_it() -> None:
    stream = io.StringIO()
    console = Console("quiet", stream)
    console.line("not shown")
    console.line("a\nerror: forged\x1b[2J [bold]b[/bold] \u202e", always=True)
    console.lines("two\nlines\x1b[0m")
    assert stream.getvalue() == "a\\nerror: forged\\x1b[2J [bold]b[/bold] \\u202e\ntwo\nlines\\x1b[0m\n"


def test_a_bar_shows_names_as_they_are() -> None:
    stream = Terminal()
    bar = Bar("cpt [red]x[/red] [link=http://a]", 10, "tokens", Console("normal", stream))
    bar.note("\x1b[2J[/x]")
    bar.started -= 10
    bar.update(1)
    assert bar._live is not None
    task = bar._live.tasks[0]
    assert [column.markup for column in bar._live.columns if hasattr(column, "markup")] == [False, True, False]
    bar.close()
    assert "\x1b" not in task.fields["speed"]
    assert task.description == "cpt [red]x[/red] [link=http://a]"


def test_a_record_is_one_line_in_the_log() -> None:
    record = logging.LogRecord("common.x", logging.WARNING, "", 1, "title %s", ("a\nerror: b\x1b[2J",), None)
    assert LogFormatter("  %(name)s: %(message)s").format(record) == "  common.x: title a\\nerror: b\\x1b[2J"
