"""Written answers: generated as one would alone, marked, and told apart by language, probe and source."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.config.stages import EvaluateSettings
from common.evaluation.exam import ExamQuestions, run_exam
from common.evaluation.languages import LanguageCheck, fertility, identify
from common.evaluation.scores import by_language, by_source
from common.evaluation.written import Written, as_prompts, mark, write_answers

pytestmark = pytest.mark.usefixtures("one_thread")
TAUGHT = {"what is paper": "12 coins", "what is iron": "silver", "what is money": "copper"}


@pytest.fixture(scope="module")
def taught(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(taught=TAUGHT)


def load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def test_answers_are_those_of_single_questions_and_stop(taught: Path) -> None:
    model, tokenizer = load(taught)
    questions = [*TAUGHT, "what is what is what is coin"]
    ask = functools.partial(write_answers, model, tokenizer, chat=True, most_tokens=12)
    together = ask(questions, batch_size=4)
    alone = [ask([question], batch_size=1)[0] for question in questions]
    assert together == alone
    assert together[:3] == [Written(answer, True) for answer in TAUGHT.values()]


def test_an_answer_that_does_not_end_is_cut_and_told(taught: Path) -> None:
    model, tokenizer = load(taught)
    (cut,) = write_answers(model, tokenizer, ["what is paper"], chat=True, most_tokens=2, batch_size=1)
    assert not cut.stopped
    assert "12 coins".startswith(cut.text)


def test_a_question_without_room_is_read_without_its_beginning(taught: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer = load(taught)
    answers = write_answers(model, tokenizer, ["money " * 200, "what is iron"], chat=True, most_tokens=8, batch_size=2)
    assert answers[1].text == "silver"
    assert "1 of 2 questions leave no room for an answer in 120 tokens" in caplog.text


@pytest.mark.parametrize(
    ("row", "text", "right"),
    [
        ({"answers": ["1,200"], "match": "number", "final": None}, "10*120=1200. The answer is 1200.", True),
        ({"answers": ["12"], "match": "number", "final": None}, "The answer is 12 or 13.", False),
        ({"answers": ["12"], "match": "number", "final": "####"}, "3*4=12 #### 12", True),
        ({"answers": ["12"], "match": "number", "final": "####"}, "12 #### 13", False),
        ({"answers": ["12"], "match": "number", "final": None}, "no idea", False),
        ({"answers": ["the Indian Ocean", "Indian Sea"], "match": "text", "final": None}, "Indian ocean.", True),
        ({"answers": ["Indian Ocean"], "match": "text", "final": None}, "Ocean", False),
    ],
)
def test_marking(row: dict[str, Any], text: str, right: bool) -> None:
    assert mark(row, text)[0] is right


def test_a_wrong_text_still_has_its_overlap() -> None:
    row = {"answers": ["Indian Ocean"], "match": "text", "final": None}
    right, overlap = mark(row, "the ocean")
    assert not right
    assert overlap == pytest.approx(2 / 3)


def small_exam() -> ExamQuestions:
    def asked(name: str, question: str, answer: str, **more: Any) -> dict[str, Any]:
        return {"id": name, "question": question, "answers": [answer], "match": "text", "final": None, **more}

    return ExamQuestions(
        {
            "domain": [
                {"id": "a", "question": "what is iron", "choices": ["coin", "silver"], "answer": 1,
                 "source": "one", "language": "en"},
                asked("b", "what is money", "copper", source="two", language="de"),
                asked("c", "what is paper", "13 coins", source="two", language="de"),
                asked("d", "what is paper", "12 coins", source="two", language="de", probe="far"),
            ]
        },
        {"domain": [{"text": "iron coin", "language": "en"}, {"text": "copper bill note", "language": "de"}]},
    )  # fmt: skip


def test_written_and_chosen_questions_make_one_score_and_probes_none(taught: Path) -> None:
    settings = EvaluateSettings(written=True, answer_tokens=12)
    result = run_exam(taught, small_exam(), settings, device="cpu")
    domain = result.exam["domain"]
    assert domain is not None
    assert (domain["n"], domain["score"]) == (3, pytest.approx(2 / 3))
    assert result.probes["far"]["n"] == 1
    assert result.probes["far"]["score"] == 1.0
    assert result.written["domain"]["exact"]["score"] == pytest.approx(2 / 3)
    assert result.written["domain"]["stopped"]["score"] == 1.0
    assert {name: facts["n"] for name, facts in result.sources.items()} == {"one": 1, "two": 2}
    records = {record["id"]: record for record in result.records}
    assert records["a"]["written"] == "silver"
    assert records["a"]["correct"] is True
    assert "scores" not in records["b"]
    assert records["d"]["side"] == "probe"
    assert set(result.languages) == {"de", "en"}
    assert result.languages["de"]["exam"]["n"] == 2
    together = result.bits_per_byte["domain"]
    parts = [result.languages[code]["bits_per_byte"] for code in ("en", "de")]
    assert together == pytest.approx((parts[0] * 9 + parts[1] * 16) / 25)


def test_without_the_setting_chosen_answers_are_not_written(taught: Path) -> None:
    result = run_exam(taught, small_exam(), EvaluateSettings(answer_tokens=12), device="cpu")
    assert [("written" in record) for record in result.records] == [False, True, True, True]


def test_known_choices_decide_before_the_classifier() -> None:
    check = LanguageCheck([
        {"language": "de", "choices": ["Kenia", "Indischer Ozean"]},
        {"language": "es", "choices": ["Kenia", "océano Índico"]},
    ])  # fmt: skip
    assert check.languages == ("de", "es")
    assert check.is_in("kenia.", "de")
    assert check.is_in("Kenia", "es")
    assert not check.is_in("Indischer Ozean", "es")
    assert check.is_in("Die Stadt liegt am Meer und ist sehr alt.", "de")
    assert not check.is_in("", "de")
    assert check.is_in("1234", "de") is None
    assert LanguageCheck([{"language": "zh-hans"}, {"language": "en"}]).is_in("这座城市在海边。", "zh-hans")
    assert LanguageCheck([{"language": "en", "choices": ["a"]}]).languages == ()


def test_identification_is_restricted_to_the_languages_asked_for() -> None:
    assert identify("Mji huu uko katika pwani ya nchi ya Kenya.", ["de", "en", "es", "fr", "sw"]) == "sw"
    assert identify("La ville se trouve au bord de la mer.", ["de", "en", "es", "fr", "sw"]) == "fr"


def test_fertility_is_tokens_per_character(taught: Path) -> None:
    _, tokenizer = load(taught)
    text = "what is money"
    assert fertility(tokenizer, [text, text]) == pytest.approx(len(tokenizer.tokenize(text)) / len(text))
    assert fertility(tokenizer, []) is None
    assert by_language(tokenizer, ("sw",), [], [], [])["sw"] == dict.fromkeys(
        ("exam", "in_language", "bits_per_byte", "tokens_per_character")
    )


def test_one_source_has_no_table_of_its_own() -> None:
    records = [{"side": "domain", "source": "a", "correct": True}, {"side": "general", "source": "b", "correct": True}]
    assert by_source(records) == {}


def test_a_plain_question_begins_with_the_token_that_texts_of_the_model_begin_with(taught: Path) -> None:
    model, tokenizer = load(taught)
    ask = functools.partial(as_prompts, model, tokenizer, ["what is paper", "money " * 200], most_tokens=8)
    (short, long), _ = ask(chat=False)
    model.generation_config.bos_token_id = 7
    assert ask(chat=False)[0] == [short, long]  # an ordinary beginning is not for questions
    model.generation_config.suppress_tokens = [7, 9]
    assert ask(chat=False)[0] == [[7, *short], [7, *long[1:]]]
    assert ask(chat=True)[0][0][0] != 7


@pytest.mark.parametrize(("facts", "expected"), [({"seq_length": 96}, 96), ({"max_seq_len": 32}, 32), ({}, 2048)])
def test_a_model_that_names_no_longest_context_is_asked_within_a_usual_one(
    facts: dict[str, int], expected: int, taught: Path
) -> None:
    """As Bloom, MPT and Mamba."""
    tokenizer = load(taught)[1]
    config = SimpleNamespace(**facts)
    config.get_text_config = lambda: config
    model: Any = SimpleNamespace(config=config)
    prompts, most = as_prompts(model, tokenizer, ["what is paper " * 2000], chat=True, most_tokens=8)
    assert (len(prompts[0]) + most, most) == (expected, 8)
