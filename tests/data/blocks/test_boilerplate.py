"""Boilerplate: planted lines go, the lines of a text do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.config.blocks import TEXT, Drop, block_of
from tests.data.blocks.driving import PROSE, one, reason

PLANTED = [
    "We use cookies to give you the best experience.",
    "\u00a9 2024 Example Ltd. All rights reserved.",
    "Please enable JavaScript to view this page.",
    "Home | Products | About us | Contact",
    "Home > Shop > Shoes",
    "Skip to content",
    "Page 3 of 12",
    "- 14 -",
    "Diese Website verwendet Cookies.",
]
KEPT = [
    "| Name | Contact | Home |",  # a row of a table
    "A | B | C",
    "News",  # a heading: no other entry is beside it
    "- item one\n- item two",
    "12 of the patients improved.",
    "Cookies are baked at 180 degrees.",
    "def home(): return contact / about",
    "We use cookies " + "and tell you at length what for " * 10,
]


def cleaned(text: str, folder: Path, **settings: Any) -> str:
    found = one("boilerplate", text, folder, **settings)
    assert not isinstance(found, Drop)
    return str(found["text"])


@pytest.mark.parametrize("line", PLANTED)
def test_a_planted_line_goes_and_is_noted(line: str, tmp_path: Path) -> None:
    first, second = PROSE["en"], PROSE["de"]
    found = one("boilerplate", f"{first}\n\n{line}\n\n{second}", tmp_path)
    assert not isinstance(found, Drop)
    assert found["text"] == f"{first}\n\n{second}"
    assert found["changed"] == ("boilerplate lines left out",)


@pytest.mark.parametrize("line", [*KEPT, *PROSE.values()])
def test_other_lines_stay(line: str, tmp_path: Path) -> None:
    text = f"{PROSE['en']}\n\n{line}\n\n{PROSE['sw']}"
    found = one("boilerplate", text, tmp_path, phrases=["read more at"])
    assert found == {"text": text, "source": "web", "language": "en"}


def test_entries_of_a_menu_go_where_they_stand_together(tmp_path: Path) -> None:
    assert cleaned(f"Home\nNews\n\nContact\n{PROSE['en']}", tmp_path) == PROSE["en"]
    assert cleaned(f"News\n{PROSE['en']}\nContact", tmp_path) == f"News\n{PROSE['en']}\nContact"


def test_a_header_of_pages_stays_once(tmp_path: Path) -> None:
    pages = "\n".join(f"Annual Report 2023 {number}\nWhat page {number * 'x'} says." for number in range(1, 6))
    found = cleaned(pages, tmp_path, repeats=4)
    assert found.count("Annual Report") == 1
    assert found.count("says.") == 5
    assert cleaned(pages, tmp_path) == pages
    assert cleaned(pages, tmp_path, repeats=6) == pages


def test_phrases_of_ones_own(tmp_path: Path) -> None:
    text = f"{PROSE['en']}\nRead more at example.org"
    assert cleaned(text, tmp_path, phrases=["READ more at"]) == PROSE["en"]


def test_a_text_of_which_too_little_is_left_goes(tmp_path: Path) -> None:
    assert reason(one("boilerplate", "\n".join(PLANTED), tmp_path)) == "only boilerplate"
    mostly = "\n".join([*PLANTED, "One short line."])
    assert reason(one("boilerplate", mostly, tmp_path)) is None
    assert reason(one("boilerplate", mostly, tmp_path, least=0.5)) == "mostly boilerplate"


def test_with_all_rules_off_nothing_happens(tmp_path: Path) -> None:
    off: dict[str, Any] = {"notices": False, "navigation": False, "page_numbers": False}
    assert cleaned("\n".join(PLANTED), tmp_path, **off) == "\n".join(PLANTED)
    assert tuple(block_of("boilerplate").rows) == TEXT
