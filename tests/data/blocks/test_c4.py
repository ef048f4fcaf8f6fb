"""The rules of C4: lines that are no sentences go, texts with code or too few sentences too."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config.blocks import Drop
from tests.data.blocks.driving import PROSE, one, reason


@pytest.mark.parametrize(
    "line",
    ["Home | About", "Please enable javascript.", "We uses cookies on it.", "Go on.", f"A {'x' * 1001} b c d."],
)
def test_a_line_that_is_no_sentence_goes(line: str, tmp_path: Path) -> None:
    found = one("c4", f"{PROSE['en']}\n{line}", tmp_path)
    assert not isinstance(found, Drop)
    assert found["text"] == PROSE["en"]
    assert found["changed"] == ("lines left out",)


def test_citations_are_cut(tmp_path: Path) -> None:
    found = one("c4", PROSE["en"].replace("town.", "town.[3]"), tmp_path)
    assert not isinstance(found, Drop)
    assert found["text"] == PROSE["en"]
    assert found["changed"] == ("citations or blanks cut",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{PROSE['en']} Lorem ipsum dolor sit amet.", "lorem ipsum"),
        (f"{PROSE['en']}\nfunction f() {{ return 1; }}.", "curly bracket"),
        ("One sentence is here. Another one is there.", "too few sentences"),
    ],
)
def test_a_planted_fault_has_its_reason(text: str, expected: str, tmp_path: Path) -> None:
    assert reason(one("c4", text, tmp_path)) == expected


def test_lines_of_chinese_need_no_english_full_stop(tmp_path: Path) -> None:
    assert reason(one("c4", PROSE["zh"], tmp_path, language="en")) == "too few sentences"
    assert reason(one("c4", PROSE["zh"], tmp_path, language="zh-hans")) is None
