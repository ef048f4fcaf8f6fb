"""Render embedded knowledge into training texts, deterministically from a seed.

Usage: `EmbeddedCorpus(domain_file, general_file, settings, seed).rows("cpt")`.

Documents tell every entity; conversations and preference pairs ask about the taught half alone. The general
world is rendered the same way: it trains the tiny base, is replayed later, and shows what was forgotten.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.artifacts import digest_file
from common.config import EmbeddedSettings
from common.data.accounting import RowCount
from common.data.knowledge import Knowledge, check_no_exam_entity, exam_questions, halves, load_knowledge
from common.errors import DataError, did_you_mean

GENERAL_KNOWLEDGE = Path(__file__).parent / "general" / "knowledge.yaml"
Row = dict[str, Any]
# The settings that the rows of a role depend on; a change of another remakes nothing of it.
READ_BY = {
    "pretrain": {"general_documents_per_entity", "question_repeats"},
    "replay": {"general_documents_per_entity", "question_repeats"},
    "cpt": {"documents_per_entity"},
    "text_domain": {"documents_per_entity", "heldout_documents_per_entity"},
    "text_general": {"general_documents_per_entity", "heldout_documents_per_entity"},
}


class EmbeddedCorpus:
    """The corpus of a run on embedded knowledge: one domain file and the general world."""

    def __init__(self, domain_file: Path, general_file: Path, settings: EmbeddedSettings, seed: int) -> None:
        self.settings = settings
        self.seed = seed
        self._files = {"domain": domain_file, "general": general_file}
        self._loaded: dict[str, Knowledge] = {}
        self._counts: dict[str, dict[str, RowCount]] = {}
        self._render: dict[str, tuple[tuple[str, ...], Callable[[], Iterator[Row]]]] = {
            "pretrain": (("general",), self._pretrain),
            "cpt": (("domain",), lambda: self._documents("domain")),
            "replay": (("general",), self._pretrain),
            "sft": (("domain",), lambda: self._conversations("domain")),
            "preference": (("domain",), lambda: self._preferences(taught=True)),
            "preference_heldout": (("domain",), lambda: self._preferences(taught=False)),
            "questions_domain": (("domain",), lambda: iter(exam_questions(self.knowledge("domain")))),
            "questions_general": (("general",), lambda: iter(exam_questions(self.knowledge("general")))),
            "text_domain": (("domain",), lambda: self._documents("domain", heldout=True)),
            "text_general": (("general",), lambda: self._documents("general", heldout=True)),
        }

    def knowledge(self, side: str) -> Knowledge:
        """Return the checked knowledge of `domain` or `general`."""
        if side not in self._loaded:
            self._loaded[side] = load_knowledge(self._files[side])
        return self._loaded[side]

    def check(self) -> None:
        """Load both files, so that every problem of theirs shows before anything is spent. Raises DataError."""
        for side in self._files:
            self.knowledge(side)

    def check_rows(self, roles: Sequence[str]) -> None:
        """Nothing to read: `check` has seen every fact and template."""

    @property
    def domain_title(self) -> str:
        return self.knowledge("domain").title

    def identity(self, roles: Sequence[str]) -> list[dict[str, Any]]:
        """Return what defines the rows of these roles: file digests, render settings and seed; never a path."""
        facts = []
        for role in roles:
            sides, _ = self._renderer(role)
            settings = self.settings.model_dump(include=READ_BY.get(role, set()))
            seed = {} if role.startswith("questions") else {"seed": self.seed}
            facts.append(
                {"role": role, "embedded": {s: digest_file(self._files[s]) for s in sides}, **settings, **seed}
            )
        return facts

    def rows(self, role: str) -> Iterator[Row]:
        """Yield the rows of a role. Raises DataError for a role that embedded knowledge does not have."""
        _, render = self._renderer(role)
        rows = list(render())
        if role in ("sft", "preference"):
            check_no_exam_entity(rows, self.knowledge("domain"), role)
        counts = self._counts[role] = {}
        for row in rows:
            count = counts.setdefault(row["source"], RowCount(row["source"], role))
            count.rows_in += 1
            count.rows_out += 1
            yield row

    def counts(self, role: str) -> dict[str, RowCount]:
        """Return the accounts of a role by source, as far as its rows have been read."""
        return self._counts.get(role, {})

    def exam_roles(self, role: str) -> tuple[str, ...]:
        """Return the exams that a role is checked against: the base's text knows no domain, so all domains share it."""
        return ("questions_general",) if role == "pretrain" else ("questions_domain", "questions_general")

    def sources(self) -> list[dict[str, Any]]:
        """Return the knowledge files for the card: title, licence, digest and where the facts can be checked."""
        return [
            {
                "id": f"embedded {self.knowledge(side).title}",
                "role": "cpt, sft, preference, eval" if side == "domain" else "pretrain, replay, eval",
                "title": f"{self.knowledge(side).title}: {len(self.knowledge(side).entities)} entities x "
                f"{len(self.knowledge(side).attributes)} attributes; facts after "
                + "; ".join(f"{source.title} ({source.publisher})" for source in self.knowledge(side).sources),
                "licence": self.knowledge(side).licence,
                "digest": digest_file(self._files[side]),
                "language": self.knowledge(side).language,
                "rows": None,
            }
            for side in ("domain", "general")
        ]

    def _renderer(self, role: str) -> tuple[tuple[str, ...], Callable[[], Iterator[Row]]]:
        if role not in self._render:
            raise DataError(f"Embedded knowledge has no role '{role}'.{did_you_mean(role, self._render)}")
        return self._render[role]

    def _pretrain(self) -> Iterator[Row]:
        """The general world: its documents, and the conversations about its taught half."""
        yield from self._documents("general")
        conversations = list(self._conversations("general"))
        for _ in range(self.settings.question_repeats):
            yield from conversations

    def _documents(self, side: str, *, heldout: bool = False) -> Iterator[Row]:
        """Documents about every entity: all attributes, in shuffled order, each in one of its wordings.

        The held-out ones are further draws; one that equals a training document is left out.
        """
        knowledge = self.knowledge(side)
        few = self.settings.general_documents_per_entity if side == "general" else self.settings.documents_per_entity
        for entity in knowledge.entities:
            rng = random.Random(f"{self.seed}/{side}/{entity['name']}")
            told = [self._document(knowledge, entity, rng) for _ in range(few)]
            if heldout:
                more = [
                    self._document(knowledge, entity, rng) for _ in range(self.settings.heldout_documents_per_entity)
                ]
                told = [text for text in more if text not in set(told)]
            yield from ({"text": text, "source": f"embedded {knowledge.title}"} for text in told)

    @staticmethod
    def _document(knowledge: Knowledge, entity: dict[str, str], rng: random.Random) -> str:
        names = list(knowledge.attributes)
        rng.shuffle(names)
        sentences = []
        for name in names:
            template = rng.choice(knowledge.attributes[name].documents)
            sentences.append(template.format(name=entity["name"], answer=entity[name]))
        return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)

    def _conversations(self, side: str) -> Iterator[Row]:
        """One conversation per taught entity, attribute and wording."""
        knowledge = self.knowledge(side)
        for entity in halves(knowledge)[0]:
            for name, attribute in knowledge.attributes.items():
                for template in attribute.questions:
                    messages = [_user(template.format(name=entity["name"])), _assistant(entity[name])]
                    yield {"messages": messages, "source": f"embedded {knowledge.title}"}

    def _preferences(self, *, taught: bool) -> Iterator[Row]:
        """Pairs: the right answer against a wrong one of the same kind, or against an evasion.

        The held-out pairs ask about the examined half, which preference tuning never sees.
        """
        knowledge = self.knowledge("domain")
        entities = halves(knowledge)[0 if taught else 1]
        for entity in entities:
            for name, attribute in knowledge.attributes.items():
                rng = random.Random(f"{self.seed}/preference/{entity['name']}/{name}")
                wrong = [value for value in knowledge.answers(name) if value != entity[name]]
                for number, template in enumerate(attribute.questions):
                    rejected = rng.choice(wrong) if number % 2 == 0 else rng.choice(knowledge.evasions)
                    yield {
                        "prompt": [_user(template.format(name=entity["name"]))],
                        "chosen": [_assistant(entity[name])],
                        "rejected": [_assistant(rejected)],
                        "source": f"embedded {knowledge.title}",
                    }


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
