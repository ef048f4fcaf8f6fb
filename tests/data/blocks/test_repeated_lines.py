"""Lines that many documents share: cut where they are in enough of them, whatever the tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config.blocks import Drop, Row
from common.data.blocks import repeated_lines
from tests.data.blocks.driving import applied, generated, reason

FOOTER, RARE = "Copyright 2024 by the Example Society", "See also the other page of this book"


def documents(number: int, source: str = "web", footers: int = 12) -> list[Row]:
    return [
        {
            "source": source,
            "text": f"Text {'abcdefghij'[place % 10] * (place + 3)} of its own\n"
            f"{FOOTER if place < footers else 'End.'}\n{RARE if place % 7 == 0 else 'x' * (place + 5)}",
        }
        for place in range(number)
    ]


@pytest.mark.parametrize("tasks", [1, 3, 7])
def test_a_line_of_enough_documents_goes_and_others_stay(tasks: int, tmp_path: Path) -> None:
    rows = documents(20)
    found = applied("repeated_lines", rows, tmp_path, tasks=tasks, documents=12)
    for place, (before, after) in enumerate(zip(rows, found, strict=True)):
        assert not isinstance(after, Drop)
        assert after["text"] == before["text"].replace(f"\n{FOOTER}", "")
        assert ("changed" in after) is (place < 12)


def test_one_document_less_and_it_stays(tmp_path: Path) -> None:
    rows = documents(20, footers=11)
    assert applied("repeated_lines", rows, tmp_path, documents=12) == rows


def test_documents_of_other_sources_do_not_count(tmp_path: Path) -> None:
    rows = [*documents(7, "a", 7), *documents(7, "b", 7)]
    assert applied("repeated_lines", rows, tmp_path, documents=8) == rows
    assert all("changed" in row for row in applied("repeated_lines", rows, tmp_path, documents=7))


def test_a_line_that_one_document_repeats_counts_once(tmp_path: Path) -> None:
    rows: list[Row] = [{"source": "web", "text": f"{FOOTER}\n" * 30}, {"source": "web", "text": "Other text\nBye now"}]
    assert applied("repeated_lines", rows, tmp_path, documents=2) == rows


def test_case_blanks_and_numbers_make_no_difference(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"source": "web", "text": f"Own text {'z' * place}a\n  {'PAGE' if place % 2 else 'Page'} {place} of 9"}
        for place in range(10)
    ]
    found = applied("repeated_lines", rows, tmp_path, documents=10)
    assert [row["text"] for row in found if not isinstance(row, Drop)] == [
        row["text"].split("\n")[0] for row in rows
    ]  # fmt: skip


def test_signs_and_long_lines_stay(tmp_path: Path) -> None:
    rows: list[Row] = [{"source": "web", "text": f"Own {'y' * place}\n}}\n---\n{'long ' * 80}"} for place in range(9)]
    assert applied("repeated_lines", rows, tmp_path, documents=3) == rows


def test_a_document_of_such_lines_alone_goes(tmp_path: Path) -> None:
    rows = [*documents(12), {"source": "web", "text": f"{FOOTER}\n\n{FOOTER}"}]
    assert reason(applied("repeated_lines", rows, tmp_path, documents=10)[-1]) == "only repeated lines"


def test_counting_in_small_pieces_counts_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Row] = [{"source": "web", "text": text} for text in generated(80)]
    (tmp_path / "whole").mkdir()
    (tmp_path / "pieces").mkdir()
    whole = applied("repeated_lines", rows, tmp_path / "whole", documents=3)
    monkeypatch.setattr(repeated_lines, "HELD", 10)
    assert applied("repeated_lines", rows, tmp_path / "pieces", tasks=4, documents=3) == whole
    assert any(isinstance(row, Drop) or "changed" in row for row in whole)


def test_no_rows_are_no_error(tmp_path: Path) -> None:
    assert applied("repeated_lines", [], tmp_path) == []
