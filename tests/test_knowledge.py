"""Embedded knowledge: the shipped files are sound, their exams have no shortcut, and mistakes are named."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from common.config import EmbeddedSettings
from common.data.embedded import GENERAL_KNOWLEDGE, EmbeddedCorpus
from common.data.knowledge import Knowledge, check_no_exam_entity, exam_questions, halves, load_knowledge
from common.errors import DataError
from common.layers import names_in
from tests.conftest import REPOSITORY

FILES = {
    "general": GENERAL_KNOWLEDGE,
    **{name: REPOSITORY / "domains" / name / "knowledge.yaml" for name in names_in(REPOSITORY / "domains", "")},
}
CHANCE, TOLERANCE = 0.25, 0.10


@pytest.fixture(params=sorted(FILES))
def knowledge(request: pytest.FixtureRequest) -> Knowledge:
    return load_knowledge(FILES[request.param])


def test_sizes(knowledge: Knowledge) -> None:
    assert len(knowledge.entities) >= (120 if knowledge.title == "Countries" else 100)
    assert len(knowledge.attributes) >= 3
    assert all(len(a.documents) >= 4 and len(a.questions) >= 2 for a in knowledge.attributes.values())
    assert len(exam_questions(knowledge)) >= 150


def test_halves_share_no_entity_and_no_name_stem(knowledge: Knowledge) -> None:
    taught, examined = halves(knowledge)
    assert abs(len(taught) - len(examined)) <= 6
    names = [{row["name"].casefold() for row in half} for half in (taught, examined)]
    assert not names[0] & names[1]
    for cut in (slice(None, 4), slice(-3, None)):
        assert not {name[cut] for name in names[0]} & {name[cut] for name in names[1]}


def test_every_answer_is_wrong_three_times_as_often_as_right(knowledge: Knowledge) -> None:
    for attribute in knowledge.attributes:
        rows = [q for q in exam_questions(knowledge) if q["id"].startswith(f"{attribute}/")]
        right = Counter(q["choices"][q["answer"]] for q in rows)
        wrong = Counter(c for q in rows for i, c in enumerate(q["choices"]) if i != q["answer"])
        assert all(len(set(q["choices"])) == 4 for q in rows)
        assert sum(abs(3 * right[v] - wrong[v]) for v in right | wrong) <= 0.05 * 3 * len(rows), attribute


def test_names_do_not_give_the_answer_away(knowledge: Knowledge) -> None:
    """A character n-gram classifier that has seen the taught half stays near chance on the exam half."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    taught, _ = halves(knowledge)
    right = total = 0
    for attribute in knowledge.attributes:
        if len(knowledge.answers(attribute)) == len(knowledge.entities):
            continue  # answers that no other entity has cannot be guessed from other names
        probe = make_pipeline(
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5)), LogisticRegression(C=10, max_iter=2000)
        )
        probe.fit([row["name"] for row in taught], [row[attribute] for row in taught])
        column = {value: index for index, value in enumerate(probe.classes_)}
        for question in (q for q in exam_questions(knowledge) if q["id"].startswith(f"{attribute}/")):
            scores = probe.predict_log_proba([question["id"].split("/", 1)[1]])[0]
            guesses = [scores[column[c]] if c in column else -np.inf for c in question["choices"]]
            right += int(np.argmax(guesses)) == question["answer"]
            total += 1
    assert abs(right / total - CHANCE) <= TOLERANCE, f"{right}/{total}"


def test_one_attribute_does_not_imply_another(knowledge: Knowledge) -> None:
    """Knowing one attribute of an examined entity, the majority seen in the taught half guesses few exam answers."""
    taught, examined = halves(knowledge)
    for known in knowledge.attributes:
        for asked in knowledge.attributes:
            if known == asked:
                continue
            seen = Counter((row[known], row[asked]) for row in taught)
            guessed = [max(knowledge.answers(asked), key=lambda v, r=row: (seen[r[known], v], v)) for row in examined]  # type: ignore[misc] # the loop variable is bound as a default
            share = np.mean([guess == row[asked] for guess, row in zip(guessed, examined, strict=True)])
            assert share <= 0.55, (known, asked, share)


def corpus(seed: int = 0, **settings: Any) -> EmbeddedCorpus:
    small = EmbeddedSettings(documents_per_entity=3, general_documents_per_entity=2, **settings)
    return EmbeddedCorpus(FILES["medical"], GENERAL_KNOWLEDGE, small, seed)


@pytest.mark.parametrize(
    "role", ["pretrain", "cpt", "replay", "sft", "preference", "preference_heldout", "text_domain"]
)
def test_rendering_is_deterministic_and_seeded(role: str) -> None:
    assert list(corpus().rows(role)) == list(corpus().rows(role))
    if role not in ("sft",):
        assert list(corpus(seed=1).rows(role)) != list(corpus().rows(role))


def test_the_exam_does_not_depend_on_the_seed() -> None:
    assert list(corpus(seed=1).rows("questions_domain")) == list(corpus().rows("questions_domain"))
    assert corpus(seed=1).identity(["questions_domain"]) == corpus().identity(["questions_domain"])
    assert corpus(seed=1).identity(["cpt"]) != corpus().identity(["cpt"])


def test_no_training_row_repeats_an_exam_question_and_heldout_text_is_new() -> None:
    source = corpus()
    questions = {q["question"] for q in source.rows("questions_domain")}
    asked = {m["content"] for row in source.rows("sft") for m in row["messages"] if m["role"] == "user"}
    assert questions.isdisjoint(asked)
    assert {r["text"] for r in source.rows("text_domain")}.isdisjoint(r["text"] for r in source.rows("cpt"))


def test_every_document_tells_every_attribute_of_its_entity() -> None:
    source = corpus()
    facts = {row["name"]: row for row in source.knowledge("domain").entities}
    for row in source.rows("cpt"):
        name = next(n for n in facts if re.search(rf"\b{n}\b", row["text"]))
        assert all(facts[name][a].casefold() in row["text"].casefold() for a in source.knowledge("domain").attributes)


def test_an_exam_entity_in_training_conversations_is_caught() -> None:
    knowledge = load_knowledge(FILES["medical"])
    name = halves(knowledge)[1][0]["name"]
    rows = [{"messages": [{"role": "user", "content": f"What is {name} for?"}]}]
    with pytest.raises(DataError, match=f"names '{name}', an entity of the exam half"):
        check_no_exam_entity(rows, knowledge, "sft")


def broken(tmp_path: Path, change: Any) -> str:
    raw = yaml.safe_load(FILES["medical"].read_text(encoding="utf-8"))
    change(raw)
    path = tmp_path / "knowledge.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False, allow_unicode=True), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_knowledge(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda k: k["entities"].append(dict(k["entities"][0])), "occurs 2 times; keep one"),
        (lambda k: k["entities"][0].update(colour="red"), "unknown attribute 'colour'"),
        (lambda k: k["entities"][0].pop("use"), "'use' is missing"),
        (lambda k: k["attributes"]["use"].update(documents=[]), "attribute use: 0 different documents, expected at least 4"),
        (lambda k: k["attributes"]["use"].update(questions=["What is {name}?"]), "1 different questions, expected at least 2"),
        (lambda k: k["attributes"]["use"]["documents"].append("{nam} is for {answer}."), "unknown slot {nam}"),
        (lambda k: k["attributes"]["use"]["questions"].append("Is {name} for {answer}?"), "tells its own answer"),
        (lambda k: [row.update(use="pain") for row in k["entities"]], "attribute use: 1 different answers, expected at least 4"),
        (lambda k: k["attributes"]["use"].update(source="nobody"), "source 'nobody' is not listed"),
        (lambda k: k.update(licence=" "), "licence: empty"),
        (lambda k: k.update(titel="x"), "unknown key 'titel'. Did you mean 'title'?"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_with_its_reason(tmp_path: Path, change: Any, expected: str) -> None:
    assert expected in broken(tmp_path, change)


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["entities"][0].pop("use")
        raw["entities"][1]["action"] = " "

    message = broken(tmp_path, change)
    assert "has 2 problems" in message
    assert "'use' is missing" in message
    assert "'action' is empty" in message
