"""A typing error and another word are kept apart."""

from __future__ import annotations

import pickle
import random

import pytest

from common.data.decontaminate import Decontaminator
from common.data.typing_errors import Slips, is_slip
from tests.data.planted import AROUND, SCRIPTS, clean, exam
from tests.data.typos import KINDS, mistyped


@pytest.mark.parametrize("written", ["capital", "capitel", "captial", "capitall", "apital", "capita", "ccapital"])
def test_one_character_makes_a_slip(written: str) -> None:
    assert is_slip("capital", written)


@pytest.mark.parametrize("written", ["", "capitol building", "cpaitla", "cpital s", "catipal", "capitalxx", "cap"])
def test_more_than_one_does_not(written: str) -> None:
    assert not is_slip("capital", written)


ASKED = "Which vitamin A product of BTU is sold in 12 towns of Mali?"
OTHERS = ["Which vitamin A product of BTU is sold to Bali now?", "How many people lived here by then?"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ASKED.replace("product", "prodcut"), True),
        (ASKED.replace("product of", "productof"), True),
        (ASKED.replace("product", "pro duct"), True),
        (ASKED.replace("Mali", "Malli"), True),
        (ASKED.replace("product", "prodcut").replace("towns", "twons"), False),  # two errors
        (ASKED.replace("12", "13"), False),
        (ASKED.replace("BTU", "BTF"), False),
        (ASKED.replace("vitamin A", "vitamin D"), False),
        (ASKED.replace("towns", "houses"), False),
    ],
)
def test_a_whole_question_with_an_error_is_found_and_another_question_is_not(text: str, found: bool) -> None:
    hit = Decontaminator([ASKED]).hit(f"Today: {text} Nobody knows.")
    assert (hit is not None) == found


def test_what_other_questions_ask_in_that_place_is_no_error() -> None:
    known = [f"What is the capital city of the state of {name}?" for name in ("Mali", "Bali", "Peru")]
    one = Decontaminator(known[:1])
    assert one.hit("What is the capital city of the state of Bali?") is not None  # nothing tells that it is a name
    assert Decontaminator([known[0], "He is of Bali?  What was his name then?"]).hit(known[1]) is None


def test_slips_go_either_way() -> None:
    slips = Slips([("one", "capital", "of", "mali")])
    assert slips.past(("one", "capital"), 1, ("one", "captial"), 1) == (2, 2)
    assert slips.past(("one", "capital"), 2, ("one", "captial"), 2, backwards=True) == (0, 0)
    assert slips.past(("one", "capital"), 1, ("one", "house"), 1) is None


@pytest.mark.parametrize("script", SCRIPTS)
def test_copies_with_a_typing_error_are_found(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    questions, (before, after), rng = exam(script), AROUND[script], random.Random(0)
    guard = pickle.loads(pickle.dumps(Decontaminator(questions)))  # as worker processes get it
    copies = [mistyped(text, kind, rng) for text in questions for kind in KINDS for _ in range(3)]
    recall = sum(guard.hit(before + text + after) is not None for text in copies) / len(copies)
    rows = clean(script)
    lost = sum(guard.hit(text) is not None for text in rows)
    with capsys.disabled():
        print(f"\n  {script}: {len(copies)} copies with a typing error, {recall:.3f} found; {lost} of {len(rows)} lost")
    assert recall >= 0.90
    assert lost == 0


def test_where_many_questions_are_worded_alike_each_is_still_found() -> None:
    names = [
        a + b + c for a in ("bor", "kal", "min", "tes") for b in ("ani", "olu", "eri") for c in ("kam", "vud", "zol")
    ]
    questions = [f"What are the first symptoms of {name} disease in children?" for name in names]
    guard, rng = Decontaminator(questions), random.Random(0)
    copies = [(text, mistyped(text, kind, rng)) for text in questions for kind in KINDS]
    found = [hit.passage.text == text for text, copy in copies if (hit := guard.hit(copy)) is not None]
    assert all(found)
    assert len(found) >= 0.9 * len(copies)
    assert guard.hit("What are the first symptoms of quarrumpox disease in children?") is None
