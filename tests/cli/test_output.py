"""Tables in a terminal: what does not fit is wrapped or left out, and nothing is lost elsewhere."""

from __future__ import annotations

import io

import pytest

from common.cli.output import table
from common.console import Console

HEADER = ["stage", "tokens", "why"]
ROWS = [["base", "5", "sft.tokens: 8192 -> 16384 (command line)"], ["card", "", ""]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, spare: int = 0) -> list[str]:
    table(Console(stream=stream), HEADER, ROWS, numeric=(1,), spare=spare)
    return stream.getvalue().splitlines()


def test_a_file_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert shown(io.StringIO(), spare=1) == [
        "  stage  tokens  why",
        "  base        5  sft.tokens: 8192 -> 16384 (command line)",
        "  card",
    ]


def test_a_narrow_terminal_wraps_the_last_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "42")
    assert shown(Terminal()) == [
        "  stage  tokens  why",
        "  base        5  sft.tokens: 8192 -> 16384",
        "                 (command line)",
        "  card",
    ]


def test_or_leaves_out_what_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "42")
    assert shown(Terminal(), spare=1) == ["  stage  tokens", "  base        5", "  card"]
    monkeypatch.setenv("COLUMNS", "80")
    assert len(shown(Terminal(), spare=1)[1]) == 57
