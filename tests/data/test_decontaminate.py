"""Exam questions are found in training rows by runs of words."""

from __future__ import annotations

import pickle
import random
import time
import tracemalloc

import pytest

from common.config.blocks import Drop
from common.data.accounting import RowCount
from common.data.decontaminate import EXAM_OVERLAP, Decontaminator, filter_rows, gate
from common.data.exam_passages import Passage, question_passages
from tests.data.planted import AROUND, CHANGES, SCRIPTS, clean, exam

LONG = "Which of the following drugs is the first choice for a child of three years with acute otitis media?"
SHORT = "What is the capital of Mali?"


@pytest.fixture
def guard() -> Decontaminator:
    return Decontaminator([LONG, SHORT, "Who was she?"])


def named(guard: Decontaminator, text: str) -> str | None:
    """Return the question that a text repeats."""
    hit = guard.hit(text)
    return None if hit is None else hit.passage.text


@pytest.mark.parametrize(
    ("text", "question"),
    [
        (f"Today's quiz: {SHORT} Bamako.", SHORT),
        ("what IS the capital, of 'Mali'", SHORT),
        ("Note: of the following drugs is the first choice for a child of three.", LONG),  # a run of 13
        ("the following drugs is the first choice for a child of three", None),  # 12 words
        ("What is the capital of Malta?", None),
        ("What is the capital of", None),
        ("Who was she?", None),  # under six words
        ("", None),
    ],
)
def test_hit(guard: Decontaminator, text: str, question: str | None) -> None:
    assert named(guard, text) == question


def test_a_whole_question_of_six_words_in_characters() -> None:
    assert Decontaminator(["中国的首都是哪座城市?"]).hit("问:中国的首都是哪座城市?答:北京")


@pytest.mark.parametrize(
    "row",
    [
        {"text": SHORT},
        {"messages": [{"role": "user", "content": SHORT}, {"role": "assistant", "content": "Bamako."}]},
        {"prompt": [{"role": "user", "content": SHORT}], "chosen": [], "rejected": []},
        {"prompt": [], "chosen": [], "rejected": [{"role": "assistant", "content": SHORT}]},
    ],
)
def test_filter_rows_looks_into_every_kind_of_row(guard: Decontaminator, row: dict[str, object]) -> None:
    clean = {"text": "Bamako lies on the Niger.", "source": "b"}
    single = RowCount("all", "cpt")
    assert list(filter_rows([row | {"source": "a"}, clean], guard, single)) == [clean]
    assert single.dropped == {"exam overlap": 1}
    each = {"a": RowCount("a", "cpt"), "b": RowCount("b", "cpt")}
    assert list(filter_rows([row | {"source": "a"}, clean], guard, each)) == [clean]
    assert (each["a"].dropped, each["b"].dropped) == ({"exam overlap": 1}, {})


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("script", SCRIPTS)
def test_no_whole_copy_is_missed(script: str, change: str) -> None:
    questions = exam(script)
    everything = Decontaminator(questions)
    before, after = AROUND[script]
    missed = [text for text in questions if not everything.hit(before + CHANGES[change](text) + after)]
    assert len(questions) == 24
    assert missed == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_clean_row_is_lost(script: str) -> None:
    rows, everything = clean(script), Decontaminator(exam(script))
    assert len(rows) == 64
    assert [text for text in rows if everything.hit(text)] == []


def test_a_short_question_is_no_more_common_in_one_script_than_in_another() -> None:
    asked = {
        "latin": ("What is its main symptom?", "What is the main symptom of malaria?"),
        "devanagari": ("इसका मुख्य लक्षण क्या है?", "मलेरिया का सबसे मुख्य लक्षण क्या है?"),
        "han": ("主要症状是什么?", "疟疾的主要症状是什么呢?"),
        "thai": ("อาการหลักคืออะไร?", "อาการหลักของโรคมาลาเรียคืออะไร?"),
    }
    for short, long in asked.values():
        assert Decontaminator([short]).hit(f"Malaria. {short}") is None
        assert named(Decontaminator([long]), f"Malaria. {long}") == long


def test_words_broken_and_compounded_at_once() -> None:
    question = "Is a well-known long-term drug newly diagnosed in children's wards?"
    everything = Decontaminator([question])
    for text in (
        "is a well known long term drug newly diagnosed in childrens wards",
        "is a well-\nknown long-term drug newly diag-\nnosed in children\u2019s wards",
        "is a well known long term drug newly diag-\nnosed in children's wards",
        "is a wellknown longterm drug newly diagnosed in childrens wards",
    ):
        assert named(everything, text) == question, text
    assert everything.hit("is a well known long term drug newly given in childrens wards") is None


def test_a_question_far_inside_a_long_text(guard: Decontaminator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.decontaminate.LONG", 100)
    for shift in range(0, 120, 7):
        text = "a " * 500 + "b" * shift + " " + LONG + " c" * 500
        assert named(guard, text) == LONG
    assert guard.hit("a " * 1000) is None


def test_a_hyphenated_copy_lies_across_the_pieces_of_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.decontaminate.LONG", 100)
    question = "Which newly diagnosed disease of the inner ear is treated with antibiotics?"
    guard, copy = Decontaminator([question]), question.replace("diagnosed", "diag-\nnosed")
    for shift in range(120):
        assert named(guard, "a " * 500 + "b" * shift + " " + copy + " c" * 500) == question, shift


def test_without_questions_a_long_text_is_not_cut_into_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.decontaminate.LONG", 100)
    monkeypatch.setattr("common.data.decontaminate.cut", None)
    assert Decontaminator([]).hit("a " * 1000) is None


def test_what_a_model_thinks_and_calls_is_looked_at_too(guard: Decontaminator) -> None:
    turn = {"role": "assistant", "content": "", "reasoning_content": SHORT}
    broken = SHORT.replace(" of ", "\nof\n")
    calls = [
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"arguments": arguments}}]}
        for arguments in ({"q": SHORT}, {"asked": [1, {"q": broken}]}, {broken: None}, broken)
    ]
    for message in (turn, *calls):
        assert list(filter_rows([{"messages": [message], "source": "a"}], guard, RowCount("a", "sft"))) == [], message
    row = {"prompt": [], "completion": [{"content": SHORT}], "source": "a"}
    assert list(filter_rows([row], guard, RowCount("a", "sft"))) == []


def test_a_million_words_take_seconds() -> None:
    question = "Is the {} of a house in the street by the river of the town?"
    guard = Decontaminator(question.format(number) for number in range(2000))
    text = "the wall of the house in the old street is near the bank of a river " * 70
    start = time.process_time()
    assert not any(guard.hit(text) for _ in range(1000))
    assert time.process_time() - start < 5  # about 1 s; a window over every position and length takes far longer


def test_held_out_texts_take_a_bounded_share_of_memory() -> None:
    rng = random.Random(0)
    texts = [" ".join(f"word{rng.randrange(5000)}" for _ in range(300)) for _ in range(60)]
    passages = [Passage(text, "text_domain", held_out=True) for text in texts]
    Decontaminator(passages[:1])
    tracemalloc.start()
    guard = Decontaminator(passages)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert guard.hit(texts[7])
    assert peak < 20 * sum(map(len, texts))  # about 12; 33 where words and pairs were objects each


def test_a_hit_names_the_question_and_shows_the_row() -> None:
    question = Passage(LONG, "questions_domain", "med:7")
    hit = Decontaminator([question]).hit(f"Quiz!\n1) {LONG.upper()} Think.")
    assert hit is not None
    assert hit.passage == question
    assert hit.matched == LONG.upper()
    row = {"messages": [{"role": "user", "content": f"Quiz: {LONG.lower()}"}], "source": "a"}
    judge = gate(pickle.loads(pickle.dumps(Decontaminator([question]))))  # as worker processes get it
    dropped = judge(row)
    assert isinstance(dropped, Drop)
    assert dropped.reason == EXAM_OVERLAP
    assert dropped.detail.startswith(f"questions_domain med:7: '{LONG}'; in the row: '{LONG.lower()[:60]}")
    kept = {"text": "Bamako lies on the Niger.", "source": "b"}
    assert judge(kept) is kept


GOODS = ("salt", "figs", "rice", "cloth", "oil", "tin", "wax", "honey", "paper", "glass")
TEXT = " ".join(
    f"On day {n} the boats of harbour {n * 7} brought {n + 2} crates of {what} to the market hall."
    for n, what in enumerate(GOODS)
)


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        (TEXT, True),
        (TEXT.upper().replace(" ", "\n "), True),
        (TEXT.replace("crates", "craets"), True),
        ("Preface. " * 200 + TEXT[len(TEXT) // 10 :], True),  # nearly all of it, in a long row
        ("Preface. " * 200 + TEXT[len(TEXT) // 2 :], False),  # half of it: texts of one field share paragraphs
        (TEXT[len(TEXT) * 2 // 3 :], True),  # a row that is a part of it
        ("Preface of another book. " * 40 + TEXT[len(TEXT) * 2 // 3 :], False),
        ("On day 3 the boats of harbour 21 brought 5 crates of cloth to the market hall.", False),  # one sentence
        ("The tide turns.", True),  # equal to one that is too short to be looked for
        ("They say that the tide turns.", False),
    ],
)
def test_held_out_texts_are_copied_by_most_or_by_a_row_that_is_a_part_of_one(text: str, copied: bool) -> None:
    texts = [
        Passage(TEXT, "text_domain", "1", held_out=True),
        Passage("The tide turns!", "text_domain", "2", held_out=True),
    ]
    assert (Decontaminator(texts).hit(text) is not None) == copied


def test_instructions_that_an_exam_repeats_are_no_evidence_and_its_questions_still_are() -> None:
    around = (
        "Read the following question with great care and choose the one best answer from the options given: {} end?"
    )
    names = [f"{a}{b}" for a in ("boran", "kalim", "minto", "tesar") for b in ("vud", "zol", "kam")]
    guard = Decontaminator(Passage(around.format(name), "bench", name) for name in names)
    assert guard.hit(around.format("nothing of the kind")) is None
    assert all(guard.hit(around.format(name)) is not None for name in names)


def test_a_question_that_several_ask_in_the_same_words_is_known_by_its_choices() -> None:
    question = "Which of the following statements about it is true?"
    rows = [{"id": str(n), "question": question, "choices": [f"The {n}th of all", f"Only {n}"]} for n in range(3)]
    guard = Decontaminator(question_passages("questions_domain", rows))
    assert guard.hit(f"{question} Nobody can tell.") is None
    hit = guard.hit(f"{question} (The 2th of all; Only 2)")
    assert hit is not None
    assert hit.passage.id == "2"
