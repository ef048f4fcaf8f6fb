"""A text that a question was made from states it, and is no copy; a copy asks, or is cut off."""

from __future__ import annotations

import pytest

from common.data.decontaminate import Decontaminator
from common.data.phrasing import question_in

ASKED = "It is a new rule. Who may seek changes or exemptions in the rule that governs the pier where boats land?"
ZH = "谁可能会为将要开发建筑的地块寻求监管法律的更改或豁免?"
ZH_FIRST = "谁被视为第一位现代地质学家?"
TAIL = "seek changes or exemptions in the rule that governs the pier where boats land"


@pytest.mark.parametrize(("text", "copied"), [
    (f"A keeper may {TAIL}.", False),
    (f"A keeper may {TAIL}, or may not, at 3.5 cents. Why?", False),
    (f"Since then, a keeper may {TAIL},", False),  # a row that goes on
    (f"Which keeper may {TAIL}?", True),
    (f"Quiz: who might {TAIL}? Nobody.", True),
    (f"Quiz: {TAIL}.", True),  # a part of it alone
    (f"Question. Which keeper may {TAIL}\nAnswer. Nobody.", True),
    (f"They ask who may {TAIL}.", True),  # all of the question, and not of the passage
    (f"We print it: {ASKED[:-1]}.", True),  # all of it
    (f"We print it: {ASKED.replace('exemptions', 'exemtpions')}", True),
])  # fmt: skip
def test_a_statement_is_no_copy(text: str, copied: bool) -> None:
    assert (Decontaminator([ASKED]).hit(text) is not None) is copied


@pytest.mark.parametrize(("question", "text", "copied"), [
    (ZH, "律师可能会为将要开发建筑的地块寻求监管法律的更改或豁免。", False),
    (ZH, f"问题: {ZH}答案: 律师。", True),
    (ZH_FIRST, "詹姆斯·赫顿通常被视为第一位现代地质学家。", False),  # a slip in the first character is another word
    (ZH_FIRST, "问题: 谁被视为第一位现带地质学家?", True),
])  # fmt: skip
def test_a_statement_in_a_script_without_spaces(question: str, text: str, copied: bool) -> None:
    assert (Decontaminator([question]).hit(text) is not None) is copied


def test_a_run_of_twice_as_many_words_is_a_copy_all_the_same() -> None:
    words = " ".join(f"word{number}" for number in range(30))
    guard = Decontaminator([f"Who says {words}?"])
    assert guard.hit(f"Many a man says {words}.") is not None
    assert guard.hit(f"Many a man says {words[: words.index(' word20')]}.") is None


def test_what_is_stated_hides_no_copy_behind_it() -> None:
    guard = Decontaminator([ASKED])
    assert guard.hit(f"A keeper may {TAIL}. {ASKED}") is not None
    assert guard.hit(f"A keeper may {TAIL}. He may {TAIL}.") is None
    assert guard.hit(f"A keeper may {TAIL}. Quiz: who might {TAIL}? Nobody.") is not None
    assert guard.hit(f"A keeper may {TAIL}. " * 16) is None
    assert guard.hit(f"A keeper may {TAIL}. " * 17) is not None  # telling is slow, and nobody writes so
    words = " ".join(f"word{number}" for number in range(30))
    guard = Decontaminator([f"Who says {words}?"])
    stated = f"Many a man says {words[: words.index(' word20')]}."
    assert guard.hit(f"{stated} Many a man says {words}.") is not None


@pytest.mark.parametrize(("passage", "question"), [
    (ASKED, " Who may" + ASKED.split(" Who may")[1]),
    ("Is it 3.5 of all?\n", "Is it 3.5 of all?"),
    ("How many are left? Explain.", ""),
    (ZH, ZH),
])  # fmt: skip
def test_the_question_of_a_passage_is_the_sentence_that_it_ends_in(passage: str, question: str) -> None:
    assert question_in(passage) == question
