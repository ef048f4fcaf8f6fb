"""A world of problems: typed templates with random numbers, a worked solution and an exact answer each.

Usage: `world = ProblemWorld(path, load_checked(path, ProblemFile))`; `list(world.questions())`.

Every set of numbers of a template is either the exam's or for training. A hash decides, so no problem of the exam is
ever shown. The exam also has wordings of its own, asked as a probe. The file is checked by
`common.data.knowledge.problem_file`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from common.config.schema import EmbeddedSettings
from common.data.corpus import Row
from common.data.knowledge.problem_file import (
    EXAM_PER_TEMPLATE,
    PROBES_PER_TEMPLATE,
    Drawn,
    ProblemFile,
    draw,
    is_for_exam,
)
from common.data.knowledge.world import World, assistant, user

PAIRS_PER_TEMPLATE = 24
NEW_WORDING = "new wording"


@dataclass(frozen=True, eq=False)
class ProblemWorld(World):
    """Problems of one file; numbers, not names, keep its exam apart."""

    knowledge: ProblemFile

    @property
    def size(self) -> str:
        return f"{len(self.knowledge.problems)} templates with drawn numbers;"

    def settings_read(self, *, general: bool) -> Mapping[str, frozenset[str]]:
        return {
            "documents": frozenset({"problem_documents"}),
            "heldout": frozenset(),
            "conversations": frozenset({"problem_conversations"}),
            "preferences": frozenset({"preference_repeats"}),
        }

    def documents(self, settings: EmbeddedSettings, seed: str, *, general: bool, heldout: bool) -> Iterator[Row]:
        """Question and worked solution as running text; the held-out ones have numbers of the exam's kind."""
        amount, part = (EXAM_PER_TEMPLATE, "text") if heldout else (settings.problem_documents, "documents")
        for question, worked, _, _ in self._solved(amount, f"{seed}/{part}", exam=heldout):
            yield self.row(text=f"{question} {worked}")

    def conversations(self, settings: EmbeddedSettings, seed: str) -> Iterator[Row]:
        """A question and its worked solution as a dialogue."""
        for question, worked, _, _ in self._solved(settings.problem_conversations, f"{seed}/conversations", exam=False):
            yield self.row(messages=[user(question), assistant(worked)])

    def preferences(self, settings: EmbeddedSettings, seed: str, *, taught: bool) -> Iterator[Row]:
        """Pairs: the worked solution against the same with a wrong result, or against an evasion."""
        amount = PAIRS_PER_TEMPLATE * (settings.preference_repeats if taught else 1)
        solved = self._solved(amount, f"{seed}/preference", exam=not taught)
        for number, (question, worked, right, rng) in enumerate(solved):
            slip = right + rng.choice([step for step in (-10, -2, -1, 1, 2, 10) if right + step >= 0])
            wrong = worked.removesuffix(self._conclusion(right)) + self._conclusion(slip)
            rejected = wrong if number % 2 == 0 else rng.choice(self.knowledge.evasions)
            yield self.row(prompt=[user(question)], chosen=[assistant(worked)], rejected=[assistant(rejected)])

    def prompts(self, settings: EmbeddedSettings, seed: str) -> Iterator[Row]:
        """Problems with numbers of the taught kind, each with its result."""
        for name, template in self.knowledge.problems.items():
            for drawn, rng in self._draws(name, settings.problem_conversations, f"{seed}/prompts", exam=False):
                question = drawn.fill(rng.choice(template.questions))
                yield self.row(prompt=[user(question)], answer=str(drawn.numbers[template.answer]))

    def questions(self, asked_elsewhere: frozenset[str] = frozenset()) -> Iterator[Row]:
        """Problems with numbers that no training text has, in known wordings and, as a probe, in new ones."""
        for probe, amount in (("", EXAM_PER_TEMPLATE), (NEW_WORDING, PROBES_PER_TEMPLATE)):
            for name, template in self.knowledge.problems.items():
                wordings = template.exam_questions if probe else template.questions
                draws = self._draws(name, amount, f"exam/{probe}", exam=True, different=True)
                for number, (drawn, rng) in enumerate(draws):
                    yield self.row(
                        id=f"{self.prefix}{probe and probe + '/'}{name}/{number}",
                        question=drawn.fill(rng.choice(wordings)),
                        answers=[str(drawn.numbers[template.answer])],
                        match="number",
                        final=None,
                        **({"probe": probe} if probe else {}),
                    )

    def _draws(
        self, name: str, amount: int, seed: str, *, exam: bool, different: bool = False
    ) -> Iterator[tuple[Drawn, random.Random]]:
        """Yield filled templates with numbers of one side of the cut, each with the generator of its wording."""
        template = self.knowledge.problems[name]
        rng = random.Random(f"{self.knowledge.title}/{seed}/{name}")
        seen: set[tuple[int, ...]] = set()
        while amount:
            drawn = draw(template, self.knowledge.words, rng)
            if drawn is None or is_for_exam(template, drawn) != exam or (different and drawn.given in seen):
                continue
            seen.add(drawn.given)
            amount -= 1
            yield drawn, rng

    def _solved(self, amount: int, seed: str, *, exam: bool) -> Iterator[tuple[str, str, int, random.Random]]:
        """Yield questions of every template, each with its worked solution, its result and its generator."""
        for name, template in self.knowledge.problems.items():
            for drawn, rng in self._draws(name, amount, seed, exam=exam):
                question, steps = (drawn.fill(rng.choice(texts)) for texts in (template.questions, template.solutions))
                answer = drawn.numbers[template.answer]
                yield question, f"{steps} {self._conclusion(answer)}", answer, rng

    def _conclusion(self, answer: int) -> str:
        return self.knowledge.conclusion.format(answer=answer)
