"""Problems: drawn deterministically, the exam's numbers never shown, every solution right, and mistakes named."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config.folders import names_in
from common.config.schema import EmbeddedSettings
from common.data.knowledge.arithmetic import Expression, NotWhole
from common.data.knowledge.collection import load_worlds
from common.data.knowledge.corpus import GENERAL_KNOWLEDGE, EmbeddedCorpus
from common.data.knowledge.file_problems import load_checked
from common.data.knowledge.problem_file import EXAM_PER_TEMPLATE, PROBES_PER_TEMPLATE, ProblemFile
from common.data.knowledge.problems import ProblemWorld
from common.errors import DataError
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

FILE = REPOSITORY / "domains" / "math" / "knowledge.yaml"
FEW = EmbeddedSettings(problem_documents=40, problem_conversations=20)


@pytest.fixture(scope="module")
def world() -> ProblemWorld:
    return ProblemWorld(FILE, load_checked(FILE, ProblemFile))


@functools.cache
def corpus(seed: int = 0, copy: int = 0) -> EmbeddedCorpus:
    """Return one of several copies that share nothing; reading the file takes a second."""
    return EmbeddedCorpus(FILE, GENERAL_KNOWLEDGE, FEW, seed)


def test_there_are_at_least_twelve_kinds_with_an_exam_each(world: ProblemWorld) -> None:
    assert len(world.knowledge.problems) >= 12
    rows = list(world.questions())
    assert len({row["id"] for row in rows}) == len(rows)
    for name in world.knowledge.problems:
        assert sum(row["id"].startswith(f"{name}/") for row in rows) == 15
        assert sum(row["id"].startswith(f"new wording/{name}/") for row in rows) == 5


@pytest.mark.parametrize("role", ["cpt", "sft", "preference", "preference_heldout", "text_domain"])
def test_rows_are_deterministic_and_seeded(role: str) -> None:
    rows = list(corpus().rows(role))
    assert list(corpus(copy=1).rows(role)) == rows
    assert list(corpus(1).rows(role)) != rows


def test_the_exam_does_not_depend_on_the_seed() -> None:
    assert list(corpus(1).rows("questions_domain")) == list(corpus().rows("questions_domain"))
    assert corpus(1).identity(["questions_domain"]) == corpus().identity(["questions_domain"])


def numbers_of(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", text))


def given_in(world: ProblemWorld, name: str, text: str) -> tuple[int, ...] | None:
    """Read the drawn numbers of a template off a text in one of its wordings; None for any other text."""
    template = world.knowledge.problems[name]
    for wording in (*template.questions, *template.exam_questions):
        shape = re.escape(wording)
        for slot in template.words:
            shape = shape.replace(rf"\{{{slot}\}}", r"\w+")
        for slot in template.numbers:
            shape = shape.replace(rf"\{{{slot}\}}", rf"(?P<{slot}>\d+)", 1).replace(rf"\{{{slot}\}}", r"\d+")
        if found := re.match(shape, text, re.IGNORECASE):
            return tuple(int(found[slot]) for slot in template.numbers)
    return None


@pytest.mark.parametrize("role", ["cpt", "sft", "preference"])
def test_no_training_row_has_the_numbers_of_an_exam_question_of_its_kind(world: ProblemWorld, role: str) -> None:
    rows = list(corpus().rows(role))
    texts = [row["text"] if "text" in row else (row.get("messages") or row["prompt"])[0]["content"] for row in rows]
    num_read = 0
    for name in world.knowledge.problems:
        exam = [row["question"] for row in world.questions() if f"{name}/" in row["id"]]
        asked = {given_in(world, name, question) for question in exam}
        assert None not in asked
        shown = [given for text in texts if (given := given_in(world, name, text)) is not None]
        num_read += len(shown)
        assert asked.isdisjoint(shown), name
    assert num_read >= len(rows)  # every row was read as at least one kind


def test_every_worked_step_is_right(world: ProblemWorld) -> None:
    """The working is checked by Python's own arithmetic, not by the code that made it."""
    for row in world.conversations(FEW, "0"):
        worked = row["messages"][1]["content"]
        for left, right in re.findall(r"([\d+*/-]+)=(\d+)", worked):
            assert eval(left, {"__builtins__": {}}) == int(right), worked  # digits and operators alone
        steps, _, conclusion = worked.partition("The answer is ")
        assert steps.rstrip(". ").endswith(conclusion.rstrip(".")), worked


def test_a_rejected_answer_is_never_the_right_one(world: ProblemWorld) -> None:
    for taught in (True, False):
        for row in world.preferences(FEW, "0", taught=taught):
            chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
            assert numbers_of(chosen)[-1:] != numbers_of(rejected)[-1:]


@pytest.mark.parametrize(
    ("text", "numbers", "value"),
    [
        ("a * b + 1", {"a": 6, "b": 7}, 43),
        ("a // 10 * 10", {"a": 47}, 40),
        ("a / 7", {"a": 42}, 6),
        ("-a", {"a": 3}, -3),
        ("a > 3 and a < 5", {"a": 4}, 1),
        ("not a", {"a": 4}, 0),
        ("2 ** 5", {}, 32),
        ("1 < 2 < 2", {}, 0),
    ],
)
def test_arithmetic(text: str, numbers: dict[str, int], value: int) -> None:
    assert Expression(text).value(numbers) == value


@pytest.mark.parametrize("text", ["a / 5", "a // 0", "a % 0", "2 ** 99"])
def test_what_does_not_come_out_whole_is_drawn_again(text: str) -> None:
    with pytest.raises(NotWhole):
        Expression(text).value({"a": 42})


@pytest.mark.parametrize("text", ["__import__('os')", "a.b", "'x'", "1.5", "a[0]", "(lambda: 1)()", "a +", "True"])
def test_nothing_but_arithmetic_is_read(text: str) -> None:
    with pytest.raises(DataError, match=r"is not allowed|no arithmetic expression"):
        Expression(text)


def broken(tmp_path: Path, change: Any) -> str:
    raw = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    change(raw, raw["problems"]["sum"])
    path = tmp_path / "knowledge.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False, allow_unicode=True), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_worlds(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f, p: f.update(licence=" "), "licence: empty"),
        (lambda f, p: f.update(sources=[]), "sources: empty"),
        (lambda f, p: f.update(evasions=["no"]), "evasions: 1 different"),
        (lambda f, p: f.update(conclusion="So."), "must have the slot {answer}"),
        (lambda f, p: f.update(titel="x"), "titel: unknown key. Did you mean 'title'?"),
        (lambda f, p: f.update(kind="problem"), "kind is 'problem'. Did you mean 'problems'?"),
        (lambda f, p: p.update(source="nobody"), "problem sum: source 'nobody' is not listed"),
        (lambda f, p: p["words"].update(name="people"), "words.name: there is no list 'people'"),
        (lambda f, p: p["numbers"].update(a=[9, 3]), "numbers.a: 9 to 3 holds no number"),
        (lambda f, p: p.update(answer="z"), "answer 'z' is no number of it"),
        (lambda f, p: p["derive"].update(q="a + y"), "'a + y' reads unknown number 'y'"),
        (lambda f, p: p["derive"].update(q="a +"), "'a +' is no arithmetic expression"),
        (lambda f, p: p.update(questions=["{a} and {b}?"]), "1 different questions, expected at least 3"),
        (lambda f, p: p.update(solutions=[]), "solutions: empty"),
        (lambda f, p: p["questions"].append("{name} has {z}, {a} and {b}?"), "unknown slot {z}"),
        (lambda f, p: p["questions"].append("{name} has {a}?"), "does not give the number {b}"),
        (lambda f, p: p["questions"].append("{a} and {b} make {c}?"), "tells its own answer"),
        (lambda f, p: p["exam_questions"].append(p["questions"][0]), "is among the questions for training too"),
        (lambda f, p: p["questions"].append("{a:,} and {b}?"), "{a:,} in '{a:,} and {b}?' is not a plain slot"),
        (lambda f, p: p["solutions"].append(" "), "solutions: a wording is empty"),
        (lambda f, p: p["words"].update(a="person"), "'a' stands in more than one of numbers, derive and words"),
        (lambda f, p: p["derive"].update(b="a + 1"), "'b' stands in more than one of numbers, derive and words"),
        (lambda f, p: p["numbers"].update(a=[-5, 60]), "numbers.a: -5 to 60 goes below zero"),
        (
            lambda f, p: (f["words"].update(two=["x", "y"]), p.update(words={"u": "two", "v": "two", "w": "two"})),
            "has 2 different words, too few for 3 slots",
        ),
        (lambda f, p: p.update(where=["a > 500"]), "only 0 of 4000 draws meet its conditions"),
        (lambda f, p: p["numbers"].update(a=[11, 13], b=[11, 15]), "only 15 different sets of numbers"),
    ],
)
def test_a_broken_file_is_refused_with_its_reason(tmp_path: Path, change: Any, expected: str) -> None:
    assert expected in broken(tmp_path, change)


def test_all_problems_of_a_file_are_listed_at_once(tmp_path: Path) -> None:
    def change(raw: dict[str, Any], template: dict[str, Any]) -> None:
        raw["licence"] = ""
        template["answer"] = "z"
        raw["problems"]["area"]["source"] = "nobody"

    message = broken(tmp_path, change)
    assert "has 3 problems" in message


@pytest.mark.parametrize("role", ["cpt", "sft", "preference"])
def test_no_training_row_holds_the_working_of_an_exam_question(world: ProblemWorld, role: str) -> None:
    """Templates share ways of working, so the exam of one could stand solved in the texts of another."""
    exam = set()
    for name, template in world.knowledge.problems.items():
        for probe, amount in (("", EXAM_PER_TEMPLATE), ("new wording", PROBES_PER_TEMPLATE)):
            for drawn, _ in world._draws(name, amount, f"exam/{probe}", exam=True, different=True):
                exam |= {drawn.fill(text) for text in template.solutions}
    assert len(exam) >= 200
    for row in corpus().rows(role):
        text = row["text"] if "text" in row else (row.get("messages") or row["chosen"])[-1]["content"]
        # As a whole: that 67-15 is a step of another kind of problem is arithmetic, not the exam.
        assert text.rpartition("? ")[2].partition(" The answer")[0] not in exam, text


def test_the_domain_is_found_in_the_folder() -> None:
    assert "math" in names_in(REPOSITORY / "domains", "")
