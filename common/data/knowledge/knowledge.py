"""A file of facts (entities x attributes) with the sentences that tell and ask them: read, checked, cut in halves.

Usage: `knowledge = load_checked(path, Knowledge)`, then `taught, examined = halves(knowledge)`.

Fine-tuning sees questions about the taught half; the exam asks about the other half, which only documents mention.
Both are rendered by `common.data.knowledge.facts`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field

from common.config.base import Frozen
from common.config.names import NonEmpty
from common.data.knowledge.file_problems import Head, Lost, read_slots
from common.errors import did_you_mean

MIN_DOCUMENT_TEMPLATES = 4
MIN_QUESTION_TEMPLATES = 2
MIN_ANSWERS = 4  # a question has as many choices
# Names that share this many first or last letters go to the same half; drug stems such as -nib are endings.
PREFIX, SUFFIX = 4, 3
SLOTS = {"name", "answer"}


class Attribute(Frozen):
    """One kind of fact: how documents state it and how questions ask for it."""

    label: NonEmpty = Field(description="what kind of fact it is, for those who read the file")
    source: NonEmpty = Field(description="id of the source by which the facts can be checked")
    documents: tuple[str, ...] = Field(description="sentences that state the fact, with {name} and {answer}")
    questions: tuple[str, ...] = Field(description="questions that ask for it, with {name}")


class Knowledge(Head):
    """A knowledge file as written; `entities` are rows of `name` and one answer per attribute."""

    kind: Literal["facts"] = Field("facts", description="what the file holds")
    entity: NonEmpty = Field(description="what an entity is, for those who read the file")
    attributes: dict[str, Attribute] = Field(description="name -> kind of fact")
    entities: tuple[dict[str, str], ...] = Field(description="rows of `name` and one answer per attribute")
    probes: dict[str, tuple[dict[str, str], ...]] = Field(
        default_factory=dict, description="label -> entities that the exam asks about and no text of this file tells"
    )

    def answers(self, attribute: str) -> list[str]:
        """Return the distinct answers of an attribute, sorted."""
        return sorted({row[attribute] for row in self.entities})

    def find_problems(self, lost: Lost) -> list[str]:
        problems = super().find_problems(lost)
        for key in ("attributes", "entities"):
            if not getattr(self, key) and key not in lost:
                problems.append(f"{key}: empty, expected at least one")
        problems += _name_problems(self)
        row_problems = list(_row_problems(self, frozenset(lost.get("attributes", ()))))
        problems += row_problems
        for name, attribute in self.attributes.items():
            lines = [*self.source_problems(attribute.source, lost), *_wording_problems(attribute)]
            lines += _spelt_twice({row[name] for _, row in _rows(self) if name in row})
            problems += [f"attribute {name}: {line}" for line in lines]
        if not row_problems and self.entities and "entities" not in lost and "probes" not in lost:
            problems += _choice_problems(self)
        return problems


def _rows(knowledge: Knowledge) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield every entity, probes too, after the words by which a message names it."""
    for number, row in enumerate(knowledge.entities, 1):
        yield f"entity {row.get('name') or f'number {number}'}", row
    for label, probed in knowledge.probes.items():
        for number, row in enumerate(probed, 1):
            yield f"probe {label!r}, entity {row.get('name') or f'number {number}'}", row


def _row_problems(knowledge: Knowledge, unread: frozenset[str]) -> Iterator[str]:
    known = {"name", *knowledge.attributes}
    for label, row in _rows(knowledge):
        if knowledge.attributes:
            for key in sorted(row.keys() - known - unread):
                yield f"{label}: unknown attribute '{key}'.{did_you_mean(key, known)}"
        for key in sorted(known - row.keys()):
            yield f"{label}: '{key}' is missing"
        for key, value in row.items():
            if not value.strip():
                yield f"{label}: '{key}' is empty"


def _name_problems(knowledge: Knowledge) -> Iterator[str]:
    """Each entity occurs once; a probe asks, once, about an entity that this file does not describe."""
    yield from (f"entities: {line}" for line in _given_twice(knowledge.entities))
    described = {_spelling(row.get("name", "")) for row in knowledge.entities} - {""}
    for label, probed in knowledge.probes.items():
        if not label.strip():
            yield "probes: a label is empty"
        yield from (f"probe {label!r}: {line}" for line in _given_twice(probed))
        for row in probed:
            if _spelling(row.get("name", "")) in described:
                yield (
                    f"probe {label!r}: {row['name']!r} is described by this file; a probe asks about what it does not "
                    "describe"
                )


def _given_twice(rows: Sequence[Mapping[str, str]]) -> list[str]:
    return [
        f"{same[0]!r} occurs {len(same)} times; keep one"
        if len(set(same)) == 1
        else f"{' and '.join(map(repr, sorted(set(same))))} are one name in several spellings; keep one"
        for same in _spelt_alike(row["name"] for row in rows if row.get("name", "").strip())
    ]


def _spelt_twice(answers: set[str]) -> list[str]:
    """Answers that differ only in case or blanks would stand as right and wrong choice of one question."""
    return [
        f"{' and '.join(map(repr, same))} are one answer in two spellings, so a right answer would stand among its "
        "distractors; keep one"
        for same in _spelt_alike(sorted(answers))
    ]


def _spelt_alike(texts: Iterable[str]) -> list[list[str]]:
    """Return the texts that differ from others in case or blanks at most, each group in a list of its own."""
    groups: dict[str, list[str]] = {}
    for text in texts:
        groups.setdefault(_spelling(text), []).append(text)
    return [group for group in groups.values() if len(group) > 1]


def _spelling(text: str) -> str:
    return " ".join(text.split()).casefold()


def _choice_problems(knowledge: Knowledge) -> Iterator[str]:
    """The choices of a question are the answers of its half, or of its list of probes."""
    taught, examined = halves(knowledge)
    parts: dict[str, Sequence[Mapping[str, str]]] = {"the half for fine-tuning": taught, "the exam half": examined}
    parts |= {f"the probe {label!r}": probed for label, probed in knowledge.probes.items()}
    for name in knowledge.attributes:
        given = len(knowledge.answers(name))
        if given < MIN_ANSWERS:
            yield f"attribute {name}: {given} different answers, expected at least {MIN_ANSWERS}"
            continue
        for part, rows in parts.items():
            given = len({row[name] for row in rows})
            if given < MIN_ANSWERS:
                yield (
                    f"attribute {name}: {given} different answers in {part}, which has {len(rows)} entities; expected "
                    f"at least {MIN_ANSWERS}, the choices of a question. Add entities of other answers"
                )


def _wording_problems(attribute: Attribute) -> Iterator[str]:
    for key, templates, least, needed in (
        ("documents", attribute.documents, MIN_DOCUMENT_TEMPLATES, SLOTS),
        ("questions", attribute.questions, MIN_QUESTION_TEMPLATES, {"name"}),
    ):
        if len(set(templates)) < least:
            yield f"{len(set(templates))} different {key}, expected at least {least}"
        for template in templates:
            slots, wrong = read_slots(template, SLOTS)
            yield from (f"{key}: {line}" for line in wrong)
            if not wrong and (missing := needed - slots):
                yield f"{template!r} lacks the slot {{{sorted(missing)[0]}}}"
            if key == "questions" and "answer" in slots:
                yield f"the question {template!r} tells its own answer"


def halves(knowledge: Knowledge) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Split the entities in a taught and an examined half.

    Names that share their first or last letters go to the same half, so that a stem such as -olol, seen with
    its answers in fine-tuning, cannot give away an exam answer. Each half gets a like share of every answer.
    """
    groups = _name_groups(knowledge.entities)
    groups.sort(key=lambda group: (-len(group), hashlib.sha256(group[0]["name"].encode()).hexdigest()))
    halves: tuple[list[dict[str, str]], list[dict[str, str]]] = ([], [])
    counts: tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]] = (Counter(), Counter())
    for group in groups:
        cells = Counter((key, row[key]) for row in group for key in knowledge.attributes)
        imbalances = []
        for side, other in ((0, 1), (1, 0)):
            spread = sum(abs(counts[side][cell] + add - counts[other][cell]) for cell, add in cells.items())
            imbalances.append(spread + 3 * abs(len(halves[side]) + len(group) - len(halves[other])))
        chosen = imbalances.index(min(imbalances))
        halves[chosen].extend(group)
        counts[chosen].update(cells)
    taught = {row["name"] for row in halves[0]}
    rows = knowledge.entities
    return [row for row in rows if row["name"] in taught], [row for row in rows if row["name"] not in taught]


def _name_groups(entities: Sequence[dict[str, str]]) -> list[list[dict[str, str]]]:
    """Group entities whose names share their first PREFIX or last SUFFIX letters, directly or through others."""
    groups: list[tuple[set[str], list[int]]] = []  # first and last letters, and the places of the entities
    for index, row in enumerate(entities):
        name = row["name"].casefold()
        letters, places = {f"^{name[:PREFIX]}", f"{name[-SUFFIX:]}$"}, [index]
        for group in [group for group in groups if group[0] & letters]:
            groups.remove(group)
            letters, places = letters | group[0], places + group[1]
        groups.append((letters, places))
    return [[entities[place] for place in sorted(places)] for _, places in groups]
