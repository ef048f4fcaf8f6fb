"""FineWeb's rules: lists, broken lines and repeats have their reasons."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.blocks.driving import PROSE, one, reason

SENTENCES = PROSE["en"].split(". ")
FAULTS = {
    "too few lines end in punctuation": "\n".join(PROSE["en"].split(" and ")),
    "too many short lines": "\n".join(f"{word}." for word in PROSE["en"].replace(".", "").split()),
    "characters in repeated lines": "\n".join([PROSE["en"], SENTENCES[0], SENTENCES[0]]),
    "too many line breaks": PROSE["en"].replace(". ", ".\n\n\n\n\n\n"),
}


@pytest.mark.parametrize("expected", FAULTS)
def test_a_planted_fault_has_its_reason(expected: str, tmp_path: Path) -> None:
    assert reason(one("fineweb_quality", FAULTS[expected].rstrip("."), tmp_path)) == expected


def test_signs_that_end_lines_can_be_given(tmp_path: Path) -> None:
    text = PROSE["en"].replace(".", ";")
    assert reason(one("fineweb_quality", text, tmp_path)) == "too few lines end in punctuation"
    assert reason(one("fineweb_quality", text, tmp_path, stop_chars=[";"])) is None
