"""A world of facts: entities, their attributes, and the sentences that tell and ask them.

Usage: `world = FactWorld(path, load_checked(path, Knowledge))`; `list(world.questions())`.

Documents tell every entity; conversations and preference pairs ask about the taught half alone, the exam about the
other half. The file itself is checked by `common.data.knowledge.knowledge`.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from common.config.schema import EmbeddedSettings
from common.data.corpus import Row
from common.data.knowledge.knowledge import Knowledge, halves
from common.data.knowledge.world import World, assistant, user

NUM_CHOICES = 4


@dataclass(frozen=True, eq=False)
class FactWorld(World):
    """Facts from one file."""

    knowledge: Knowledge

    @property
    def size(self) -> str:
        return f"{len(self.knowledge.entities)} entities x {len(self.knowledge.attributes)} attributes; facts"

    def settings_read(self, *, general: bool) -> Mapping[str, frozenset[str]]:
        few = frozenset({"general_documents_per_entity" if general else "documents_per_entity"})
        return {
            "documents": few,
            "heldout": few | {"heldout_documents_per_entity"},
            "conversations": frozenset(),
            "preferences": frozenset({"preference_repeats"}),
        }

    @functools.cached_property
    def halves(self) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """The taught and the examined entities."""
        return halves(self.knowledge)

    def documents(self, settings: EmbeddedSettings, seed: str, *, general: bool, heldout: bool) -> Iterator[Row]:
        """Tell every entity: all attributes, in shuffled order, each in one of its wordings.

        The held-out texts are further draws; one that equals a training text is left out.
        """
        few = settings.general_documents_per_entity if general else settings.documents_per_entity
        for entity in self.knowledge.entities:
            rng = random.Random(f"{seed}/{self.prefix}{entity['name']}")
            known = [self._document(entity, rng) for _ in range(few)]
            if heldout:
                more = [self._document(entity, rng) for _ in range(settings.heldout_documents_per_entity)]
                known = [text for text in more if text not in set(known)]
            yield from (self.row(text=text) for text in known)

    def conversations(self, settings: EmbeddedSettings, seed: str) -> Iterator[Row]:
        """One conversation per taught entity, attribute and wording."""
        for question, answer in self._taught():
            yield self.row(messages=[user(question), assistant(answer)])

    def preferences(self, settings: EmbeddedSettings, seed: str, *, taught: bool) -> Iterator[Row]:
        """Pairs: the right answer against a wrong one of the same kind, or against an evasion."""
        repeats = settings.preference_repeats if taught else 1
        for entity in self.halves[0 if taught else 1]:
            for name, attribute in self.knowledge.attributes.items():
                rng = random.Random(f"{seed}/preference/{self.prefix}{entity['name']}/{name}")
                wrong = [value for value in self.knowledge.answers(name) if value != entity[name]]
                for number, template in enumerate(attribute.questions * repeats):
                    question = template.format(name=entity["name"])
                    rejected = rng.choice(wrong if number % 2 == 0 else self.knowledge.evasions)
                    yield self.row(
                        prompt=[user(question)], chosen=[assistant(entity[name])], rejected=[assistant(rejected)]
                    )

    def prompts(self, settings: EmbeddedSettings, seed: str) -> Iterator[Row]:
        """The questions of the conversations, each with the answer by which a reply can be checked."""
        for question, answer in self._taught():
            yield self.row(prompt=[user(question)], answer=answer)

    def questions(self, asked_elsewhere: frozenset[str] = frozenset()) -> Iterator[Row]:
        """One question per examined entity and attribute, then the probes; NUM_CHOICES choices each.

        A probe about something that a conversation asks about, in whatever language, would show nothing.
        """
        yield from self._asked(self.halves[1], "")
        for label, entities in self.knowledge.probes.items():
            yield from self._asked([row for row in entities if row["name"] not in asked_elsewhere], label)

    def taught_names(self) -> frozenset[str]:
        return frozenset(row["name"] for row in self.halves[0])

    def hidden_names(self) -> frozenset[str]:
        return frozenset(row["name"] for row in self.halves[1])

    def _taught(self) -> Iterator[tuple[str, str]]:
        """Yield every question about the taught half, with its answer."""
        for entity in self.halves[0]:
            for name, attribute in self.knowledge.attributes.items():
                for template in attribute.questions:
                    yield template.format(name=entity["name"]), entity[name]

    def _document(self, entity: Mapping[str, str], rng: random.Random) -> str:
        names = list(self.knowledge.attributes)
        rng.shuffle(names)
        sentences = []
        for name in names:
            template = rng.choice(self.knowledge.attributes[name].documents)
            sentences.append(template.format(name=entity["name"], answer=entity[name]))
        return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)

    def _asked(self, entities: Sequence[Mapping[str, str]], probe: str) -> Iterator[Row]:
        """Ask for every attribute of these entities. The draws depend on title and names, never on a seed."""
        title, mark = self.knowledge.title, f"{probe}/" if probe else ""
        for name, attribute in self.knowledge.attributes.items():
            wrong = balanced_distractors([row[name] for row in entities], key=f"{title}/{mark}{name}")
            for row, distractors in zip(entities, wrong, strict=True):
                rng = random.Random(f"{title}/{mark}{row['name']}/{name}")
                choices = [row[name], *distractors]
                rng.shuffle(choices)
                template = attribute.questions[rng.randrange(len(attribute.questions))]
                yield self.row(
                    id=f"{self.prefix}{mark}{name}/{row['name']}",
                    question=template.format(name=row["name"]),
                    choices=choices,
                    answer=choices.index(row[name]),
                    **({"probe": probe} if probe else {}),
                )


def balanced_distractors(answers: Sequence[str], key: str, trials: int = 40) -> list[list[str]]:
    """Choose three wrong choices per question so that no answer is likelier right than wrong by itself.

    Every answer serves as a distractor three times as often as it is right, as nearly as can be, so that a
    model that only knows which answers are common stays at chance. The best of `trials` seeded draws is kept.
    """
    per_question = NUM_CHOICES - 1
    right = Counter(answers)
    best: list[list[str]] = []
    best_gap: float = float("inf")
    for trial in range(trials):
        rng = random.Random(f"{key}/{trial}")
        quota = {value: per_question * count for value, count in right.items()}
        order = list(range(len(answers)))
        rng.shuffle(order)
        chosen: dict[int, list[str]] = {}
        for index in order:
            values = [value for value in quota if value != answers[index]]
            values.sort(key=lambda value: (-quota[value], rng.random()))
            chosen[index] = values[:per_question]
            for value in chosen[index]:
                quota[value] -= 1
        gap = sum(abs(left) for left in quota.values())
        if gap < best_gap:
            best, best_gap = [chosen[index] for index in range(len(answers))], gap
        if gap == 0:
            break
    return best
