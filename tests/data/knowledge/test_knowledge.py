"""Embedded knowledge: the shipped files are sound, their exams have no shortcut, and mistakes are named."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from common.config.folders import names_in
from common.config.schema import EmbeddedSettings
from common.data.knowledge.collection import load_worlds
from common.data.knowledge.corpus import GENERAL_KNOWLEDGE, EmbeddedCorpus, check_no_hidden_name
from common.data.knowledge.facts import FactWorld
from common.data.knowledge.file_problems import load_checked
from common.data.knowledge.knowledge import Knowledge, halves
from common.errors import DataError
from tests.conftest import REPOSITORY

FILES = {
    "general": GENERAL_KNOWLEDGE,
    **{name: REPOSITORY / "domains" / name / "knowledge.yaml" for name in names_in(REPOSITORY / "domains", "")},
}


def _worlds() -> dict[str, FactWorld]:
    """The worlds of facts by file; a file that does not load fails the first test, not all of them."""
    found: dict[str, FactWorld] = {}
    for name, path in FILES.items():
        with contextlib.suppress(DataError):
            for world in load_worlds(path)[1]:
                if isinstance(world, FactWorld):
                    found[f"{name}{world.prefix and '-' + world.prefix[:-1]}"] = world
    return found


WORLDS = _worlds()
CHANCE, TOLERANCE = 0.25, 0.10
SHIPPED = ("cybersecurity", "finance", "general", "legal", "math", "medical", "multilingual")
MEASURABLE = 60  # entities; the exam of a smaller file says little about shortcuts


@pytest.fixture(params=sorted(k for k, w in WORLDS.items() if w.prefix or len(w.knowledge.entities) >= MEASURABLE))
def world(request: pytest.FixtureRequest) -> FactWorld:
    return WORLDS[request.param]


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_shipped_file_loads(name: str) -> None:
    title, worlds = load_worlds(FILES[name])
    assert title
    assert worlds


def exam_of(world: FactWorld) -> list[dict[str, Any]]:
    return [row for row in world.questions() if "probe" not in row]


@pytest.mark.parametrize("name", SHIPPED)
def test_sizes(name: str) -> None:
    worlds = [world for key, world in WORLDS.items() if key.split("-")[0] == name]
    if not worlds:
        pytest.skip(f"{name} holds problems, not facts")
    assert sum(len(world.knowledge.entities) for world in worlds) >= 84
    assert sum(len(exam_of(world)) for world in worlds) >= 120
    for attributes in (world.knowledge.attributes for world in worlds):
        assert len(attributes) >= 3
        assert all(len(a.documents) >= 6 and len(a.questions) >= 3 for a in attributes.values())


def test_halves_share_no_entity_and_no_name_stem(world: FactWorld) -> None:
    taught, examined = world.halves
    assert abs(len(taught) - len(examined)) <= 6
    names = [{row["name"].casefold() for row in half} for half in (taught, examined)]
    assert not names[0] & names[1]
    for cut in (slice(None, 4), slice(-3, None)):
        assert not {name[cut] for name in names[0]} & {name[cut] for name in names[1]}


def test_every_answer_is_wrong_three_times_as_often_as_right(world: FactWorld) -> None:
    for attribute in world.knowledge.attributes:
        rows = [q for q in exam_of(world) if q["id"].startswith(f"{world.prefix}{attribute}/")]
        right = Counter(q["choices"][q["answer"]] for q in rows)
        wrong = Counter(c for q in rows for i, c in enumerate(q["choices"]) if i != q["answer"])
        assert all(len(set(q["choices"])) == 4 for q in rows)
        allowed = 0.05 if not world.prefix else 0.35  # a part of a collection is too small for an even spread
        assert sum(abs(3 * right[v] - wrong[v]) for v in right | wrong) <= allowed * 3 * len(rows), attribute


@pytest.mark.parametrize("name", sorted(FILES))
def test_names_do_not_give_the_answer_away(name: str) -> None:
    """A character n-gram classifier that has seen the taught half stays near chance on the exam half."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    right = total = 0
    for world in (world for key, world in WORLDS.items() if key.split("-")[0] == name):
        taught, _ = world.halves
        for attribute in world.knowledge.attributes:
            if len(world.knowledge.answers(attribute)) == len(world.knowledge.entities):
                continue  # answers that no other entity has cannot be guessed from other names
            probe = make_pipeline(
                TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5)), LogisticRegression(C=10, max_iter=2000)
            )
            probe.fit([row["name"] for row in taught], [row[attribute] for row in taught])
            column = {value: index for index, value in enumerate(probe.classes_)}
            start = f"{world.prefix}{attribute}/"
            for question in (q for q in exam_of(world) if q["id"].startswith(start)):
                scores = probe.predict_log_proba([question["id"].removeprefix(start)])[0]
                guesses = [scores[column[c]] if c in column else -np.inf for c in question["choices"]]
                right += int(np.argmax(guesses)) == question["answer"]
                total += 1
    if total:
        if (
            sum(len(world.knowledge.entities) for key, world in WORLDS.items() if key.split("-")[0] == name)
            < MEASURABLE
        ):
            pytest.skip("too few entities to tell a shortcut from luck")
        assert abs(right / total - CHANCE) <= TOLERANCE, f"{right}/{total}"


def test_one_attribute_does_not_imply_another(world: FactWorld) -> None:
    """Knowing one attribute of an examined entity, the majority seen in the taught half guesses few exam answers."""
    taught, examined = world.halves
    knowledge = world.knowledge
    for known in knowledge.attributes:
        for asked in knowledge.attributes:
            if known == asked or world.prefix:  # parts: a country lies in one region, as in the world
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
    knowledge = WORLDS["medical"].knowledge
    facts = {row["name"]: row for row in knowledge.entities}
    for row in corpus().rows("cpt"):
        name = next(n for n in facts if re.search(rf"\b{n}\b", row["text"]))
        assert all(facts[name][a].casefold() in row["text"].casefold() for a in knowledge.attributes)


def test_an_exam_entity_in_training_conversations_is_caught() -> None:
    world = FactWorld(FILES["medical"], load_checked(FILES["medical"], Knowledge))
    name = halves(world.knowledge)[1][0]["name"]
    rows = [{"messages": [{"role": "user", "content": f"What is {name} for?"}]}]
    with pytest.raises(DataError, match=f"names '{name}', an entity of the exam half"):
        check_no_hidden_name(rows, [world], "sft")


def write_collection(folder: Path, files: dict[str, dict[str, Any]], **keys: Any) -> Path:
    """Write a collection of parts, each the medical file with some keys changed."""
    raw = yaml.safe_load(FILES["medical"].read_text(encoding="utf-8"))
    for name, change in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(raw | change, allow_unicode=True), encoding="utf-8")
    path = folder / "knowledge.yaml"
    path.write_text(yaml.safe_dump({"kind": "collection", "title": "T", "parts": list(files)} | keys), encoding="utf-8")
    return path


def cut_in_two() -> tuple[dict[str, Any], dict[str, Any]]:
    entities = yaml.safe_load(FILES["medical"].read_text(encoding="utf-8"))["entities"]
    return {"entities": entities[::2]}, {"entities": entities[1::2]}


def test_a_collection_makes_worlds_whose_ids_tell_the_part(tmp_path: Path) -> None:
    first, second = cut_in_two()
    title, worlds = load_worlds(write_collection(tmp_path, {"parts/a.yaml": first, "b.yaml": second}))
    assert title == "T"
    ids = [row["id"] for world in worlds for row in world.questions()]
    assert len(set(ids)) == len(ids)
    assert {name.split("/")[0] for name in ids} == {"a", "b"}


@pytest.mark.parametrize(
    ("names", "keys", "expected"),
    [
        (("parts/a.yaml", "a.yaml"), {}, "parts 'parts/a.yaml' and 'a.yaml' share the name 'a'"),
        (("a.yaml", "b.yaml"), {"parts": ["a.yaml", "../b.yaml"]}, "part '../b.yaml' leaves the folder of this file"),
        (("a.yaml", "b.yaml"), {"parts": ["a.yaml", "c.yaml"]}, "c.yaml"),
        (("a.yaml", "b.yaml"), {"parst": []}, "parst: unknown key. Did you mean 'parts'?"),
        (("a.yaml", "b.yaml"), {"title": ""}, "title"),
        (("a.yaml", "knowledge.yaml"), {}, "kind is 'collection'; a part of a collection is facts or problems"),
    ],
)
def test_mistakes_of_a_collection_are_named(
    names: tuple[str, str], keys: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    path = write_collection(tmp_path, dict(zip(names, cut_in_two(), strict=True)), **keys)
    with pytest.raises(DataError) as caught:
        load_worlds(path)
    assert expected in str(caught.value)


def test_problems_of_all_parts_are_told_at_once(tmp_path: Path) -> None:
    first, second = cut_in_two()
    path = write_collection(tmp_path, {"a.yaml": first | {"licence": ""}, "b.yaml": second | {"titel": "x"}})
    with pytest.raises(DataError, match=r"(?s)a\.yaml.*licence: empty.*b\.yaml.*titel: unknown key"):
        load_worlds(path)


def test_an_entity_of_two_parts_is_refused(tmp_path: Path) -> None:
    first, second = cut_in_two()
    second["entities"].append(first["entities"][0])
    path = write_collection(tmp_path, {"a.yaml": first, "b.yaml": second})
    with pytest.raises(
        DataError, match=f"'{first['entities'][0]['name']}' is described by a.yaml and b.yaml; keep it in"
    ):
        load_worlds(path)


def broken(tmp_path: Path, change: Any) -> str:
    raw = yaml.safe_load(FILES["medical"].read_text(encoding="utf-8"))
    change(raw)
    path = tmp_path / "knowledge.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False, allow_unicode=True), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_checked(path, Knowledge)
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
        (lambda k: k.update(titel="x"), "titel: unknown key. Did you mean 'title'?"),
        (lambda k: k["entities"].append({**k["entities"][0], "name": k["entities"][0]["name"].upper() + " "}), "one name in several spellings"),
        (lambda k: k["entities"][0].update(use=4), ".use: expected text; got 4; put it in quotes"),
        (lambda k: k.pop("title"), "title is missing."),
        (lambda k: k["attributes"]["use"]["questions"].append("{name!r}?"), "{name!r} in '{name!r}?' is not a plain slot"),
        (lambda k: k["attributes"]["use"]["questions"].append("{name.foo}?"), "{name.foo} in '{name.foo}?' is not a plain slot"),
        (lambda k: k["attributes"]["use"]["questions"].append("{name} }?"), "has a brace without its partner"),
        (lambda k: k.update(probes={"p": [dict(k["entities"][0])]}), "is described by this file"),
        (lambda k: k.update(probes={"p": [{**k["entities"][0], "name": "Xyz"}] * 2}), "probe 'p': 'Xyz' occurs 2 times"),
        (lambda k: k.update(probes={"p": [{**k["entities"][0], "name": "Xyz"}]}), "1 different answers in the probe 'p'"),
        (lambda k: k.update(probes={"p": [{**k["entities"][0], "name": "Xyz", "use": "Cancer"}]}), "one answer in two spellings"),
        (lambda k: k["entities"][0].update(use="Cancer"), "'Cancer' and 'cancer' are one answer in two spellings"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_with_its_reason(tmp_path: Path, change: Any, expected: str) -> None:
    assert expected in broken(tmp_path, change)


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw["entities"][0].pop("use")
        raw["entities"][1]["action"] = " "
        raw["colour"] = "red"

    message = broken(tmp_path, change)
    assert "has 3 problems" in message
    assert "colour: unknown key" in message
    assert "'use' is missing" in message
    assert "'action' is empty" in message


def test_probes_ask_only_what_no_conversation_asks_in_any_language() -> None:
    source = EmbeddedCorpus(FILES["multilingual"], GENERAL_KNOWLEDGE, EmbeddedSettings(documents_per_entity=1), 0)
    told = {world.knowledge.language: world for world in source.worlds("domain") if isinstance(world, FactWorld)}
    taught = {row["name"] for world in told.values() for row in world.halves[0]}
    probes = [row for row in source.rows("questions_domain") if "probe" in row]
    asked = {row["id"].rsplit("/", 1)[1] for row in probes}
    assert asked == {row["name"] for row in told["en"].halves[1]}
    assert asked.isdisjoint(taught)
    assert {row["language"] for row in probes} == {"de", "es", "fr", "sw"}
    assert all(len(set(row["choices"])) == 4 for row in probes)


def test_what_is_malformed_does_not_hide_the_rest(tmp_path: Path) -> None:
    def change(raw: dict[str, Any]) -> None:
        raw.pop("licence")
        raw["entities"][0]["colour"] = "red"
        raw["entities"][1]["action"] = " "

    message = broken(tmp_path, change)
    assert "has 3 problems" in message
    assert "licence is missing." in message
    assert "{" not in message
    assert ".." not in message


@pytest.mark.parametrize("role", ["cpt", "replay", "pretrain", "sft"])
def test_a_role_names_its_sources_as_its_rows_do(role: str) -> None:
    source = EmbeddedCorpus(FILES["multilingual"], GENERAL_KNOWLEDGE, EmbeddedSettings(documents_per_entity=1), 0)
    assert set(source.conversations(role)) == {row["source"] for row in source.rows(role)} == set(source.unpaired(role))
