"""Lists and objects in strings are read, in JSON or Python's notation; what JSON cannot say stays text."""

from __future__ import annotations

from typing import Any

import pytest

from common.data.manifest.calls import parsed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('[{"a": 1}]', [{"a": 1}]), ("[{'a': None}]", [{"a": None}]), ("{'a': (1, 2)}", {"a": (1, 2)}), ("{", "{"),
        (" plain", " plain"),
    ],
)  # fmt: skip
def test_what_a_string_holds(text: str, value: Any) -> None:
    assert parsed(text) == value


@pytest.mark.parametrize(
    "text", ["{{}}", "{{1},{2}}", "{[0,1]}", "{1, 2}", "[b'x']", "[1j]", "[...]", "{(1, 2): 3}", "{{name}} said"]
)
def test_what_json_has_no_word_for_stays_text(text: str) -> None:
    assert parsed(text) == text
