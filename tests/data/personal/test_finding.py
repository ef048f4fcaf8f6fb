"""Planted personal data is found, kind by kind, and what only looks like it is left alone."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from common.data.personal.finding import Kind, find_personal
from tests.data.personal.texts import MAKERS, lookalikes, planted

pytest.importorskip("phonenumbers")
pytest.importorskip("stdnum")
PHONE: tuple[Kind, ...] = ("phone",)
KINDS: tuple[Kind, ...] = get_args(Kind)
COUNT, SEED = 400, 1
RECALL, PRECISION = 0.98, 0.95


def test_recall_and_precision_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole value and nothing beside it counts as found; all else is false."""
    right, false = Counter[str](), Counter[str]()
    for kind in MAKERS:
        for text, place in planted(kind, COUNT, SEED):
            for span in find_personal(text, KINDS):
                (right if (span.start, span.end, span.kind) == (*place, kind) else false)[span.kind] += 1
    for text in lookalikes(COUNT * 3, SEED):
        false.update(span.kind for span in find_personal(text, KINDS))
    with capsys.disabled():
        print()
        for kind in MAKERS:
            print(
                f"{kind:12} recall {right[kind] / COUNT:.3f}  precision {right[kind] / (right[kind] + false[kind]):.3f}"
            )
    assert {kind for kind in MAKERS if right[kind] < RECALL * COUNT} == set()
    assert {kind for kind in MAKERS if right[kind] < PRECISION * (right[kind] + false[kind])} == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to jane@firm.org.Then wait", ["jane@firm.org"]),
        ("id=7&mail=bob@tables.net&x=1", ["bob@tables.net"]),
        ("all queries\n@event.listens_for(x)", []),
        ("<TD>8.8.8.8</TD>, the server 9.9.9.10:53, net 185.60.216.0/24", ["8.8.8.8", "9.9.9.10", "185.60.216.0"]),
        ("## 4.1.1.1 AWS\nsee (3.4.1.4) and rfc5280#section-4.2.1.13", []),
        ("[2607:f8b0::1]:443 at 12:30:45, abc::def", ["2607:f8b0::1"]),
        ("telephone fraud (§§ 22-1803, 22-3226.06, 22-3226.10)", []),
        ("fax (555-3476), tel (030) 901820", ["555-3476", "(030) 901820"]),
        ("+49 30 901820 2 Personen; 415-555-2671 x12", ["+49 30 901820", "415-555-2671 x12"]),
        ("the drive can store 2400 / 200 = 12 and 0900-0130 = 0730", []),
        ("DE89 3704 0044 0532 0130 00 BIC COBADEFF", ["DE89 3704 0044 0532 0130 00"]),
        ("DE89 3704 0044 0532 0130 01", []),
        ("4111 1111 1111 1111 but not 4111 1111 1111 1112", ["4111 1111 1111 1111"]),
        ("हेल्प ٠٣٠ +91 98765 43210", ["+91 98765 43210"]),
    ],
)  # fmt: skip
def test_by_example(text: str, expected: list[str]) -> None:
    assert [text[span.start : span.end] for span in find_personal(text, KINDS)] == expected


def test_reserved_addresses_are_found_where_asked_for() -> None:
    text = "root@example.com 192.168.0.7 fe80::1 2001:db8::7"
    assert find_personal(text, KINDS) == []
    found = [text[span.start : span.end] for span in find_personal(text, KINDS, local=True)]
    assert found == ["root@example.com", "192.168.0.7", "fe80::1", "2001:db8::7"]


def test_regions_decide_on_numbers_without_a_country() -> None:
    text = "Telefon 030 901820"
    assert find_personal(text, PHONE, regions=("US",)) == []
    assert len(find_personal(text, PHONE, regions=("DE",))) == 1


def test_a_long_line_takes_time_in_proportion() -> None:
    """Neither digits without end nor signs without end make a pattern go back and forth."""
    for text in ("1 " * 100_000, "a." * 100_000 + "@", "@" * 100_000, "2001:" * 50_000, "(+1" * 60_000):
        assert len(find_personal(text, KINDS)) < 10
