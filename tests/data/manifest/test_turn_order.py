"""Conversations out of order are left out by reason, or repaired where the source asks for it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from common.data.manifest.turn_order import fold_system, in_order
from common.data.manifest.values import UnusableRow

NAMES = {"s": "system", "u": "user", "a": "assistant", "c": "assistant", "t": "tool", "e": "user", "n": "assistant"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {}}}


def turns(letters: str) -> list[dict[str, Any]]:
    """One turn for each letter: c calls a tool, e and n are an empty question and answer, n is not learned."""
    made: list[dict[str, Any]] = []
    for place, letter in enumerate(letters):
        turn: dict[str, Any] = {"role": NAMES[letter], "content": "" if letter in "ecn" else f"{letter}{place}"}
        made.append(turn | ({"tool_calls": [CALL]} if letter == "c" else {}))
    return made


def fixed(letters: str, **options: Any) -> tuple[list[str], list[str]]:
    changes: list[str] = []
    found = in_order(turns(letters), fix=True, changes=changes, **options)
    return [turn["content"] for turn in found], changes


@pytest.mark.parametrize("letters", ["ua", "sua", "uaua", "ucta", "ucttcta", "uc", "uata", "uctaua"])
def test_in_order(letters: str) -> None:
    for fix in (False, True):
        changes: list[str] = []
        assert in_order(turns(letters), fix=fix, changes=changes) == turns(letters)
        assert changes == []


@pytest.mark.parametrize(
    ("letters", "reason"),
    [
        ("", "empty messages"),
        ("s", "a system turn alone"),
        ("uau", "ends in a user turn"),
        ("uct", "ends in a tool turn"),
        ("aua", "starts with the assistant"),
        ("saua", "starts with the assistant"),
        ("ta", "starts with a tool turn"),
        ("uua", "two user turns in a row"),
        ("uaa", "two assistant turns in a row"),
        ("ssua", "two system turns in a row"),
        ("uasua", "a system turn after the start"),
        ("uta", "a tool turn without a call"),
        ("ea", "an empty user turn"),
        ("un", "an empty assistant turn"),
    ],
)
def test_out_of_order(letters: str, reason: str) -> None:
    with pytest.raises(UnusableRow, match=f"^{re.escape(reason)}$"):
        in_order(turns(letters), fix=False, changes=[])


BEFORE, AFTER = "turns before the user's first left out", "turns after the last answer left out"
JOINED, EMPTY = "turns of one side in a row joined", "empty turns left out"


@pytest.mark.parametrize(
    ("letters", "contents", "changes"),
    [
        ("uau", ["u0", "a1"], [AFTER]),
        ("uctat", ["u0", "", "t2", "a3"], [AFTER]),
        ("aua", ["u1", "a2"], [BEFORE]),
        ("saua", ["s0", "u2", "a3"], [BEFORE]),
        ("uua", ["u0\n\nu1", "a2"], [JOINED]),
        ("uaa", ["u0", "a1\n\na2"], [JOINED]),
        ("ssua", ["s0\n\ns1", "u2", "a3"], [JOINED]),
        ("uneua", ["u0\n\nu3", "a4"], [EMPTY, JOINED]),
        ("uan", ["u0", "a1"], [EMPTY]),
    ],
)
def test_repaired(letters: str, contents: list[str], changes: list[str]) -> None:
    assert fixed(letters) == (contents, changes)


def test_what_cannot_be_repaired() -> None:
    for letters, reason in (("uasua", "a system turn after the start"), ("u", "ends in a user turn"), ("n", "empty")):
        with pytest.raises(UnusableRow, match=reason):
            fixed(letters)


def test_turns_that_are_not_learned_alike_are_not_joined() -> None:
    given = turns("uaa")
    given[1]["learn"] = False
    with pytest.raises(UnusableRow, match="two assistant turns in a row"):
        in_order(given, fix=True, changes=[])


def test_a_prompt_ends_where_it_ends() -> None:
    assert fixed("uau", answered=False) == (["u0", "a1", "u2"], [])


def test_an_empty_system_turn_is_left_out() -> None:
    changes: list[str] = []
    empty = {"role": "system", "content": ""}
    assert in_order([empty, *turns("ua")], fix=False, changes=changes) == turns("ua")
    assert changes == ["empty system turns left out"]


def test_system_text_in_the_first_user_turn() -> None:
    changes: list[str] = []
    assert [turn["content"] for turn in fold_system(turns("suaua"), changes)] == ["s0\n\nu1", "a2", "u3", "a4"]
    assert changes == ["system text joined to the first user turn"]
    assert fold_system(turns("ua"), changes) == turns("ua")
    assert len(changes) == 1
