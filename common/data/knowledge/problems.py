"""A world of problems: typed templates with random numbers, a worked solution and an exact answer each.

Usage: `world = load_problems(Path("domains/math/knowledge.yaml"))`; `list(world.questions())`.

Every set of numbers of a template is either the exam's or for training. A hash decides, so no problem of the exam is
ever shown. The exam also has wordings of its own, asked as a probe. The file is checked by
`common.data.knowledge.problem_file`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.schema import EmbeddedSettings
from common.data.corpus import Row
from common.data.knowledge.facts import assistant, user
from common.data.knowledge.problem_file import (
    EXAM_PER_TEMPLATE,
    PROBES_PER_TEMPLATE,
    Drawn,
    ProblemFile,
    draw,
    is_for_exam,
    load_problem_file,
)

PAIRS_PER_TEMPLATE = 24
NEW_WORDING = "new wording"


@dataclass(frozen=True, eq=False)
class ProblemWorld:
    """Problems of one file; `prefix` begins the ids of its questions where it is one part of several."""

    file: Path
    problems: ProblemFile
    prefix: str = ""

    @property
    def title(self) -> str:
        return self.problems.title

    @property
    def language(self) -> str:
        return self.problems.language

    def settings_read(self, *, general: bool) -> Mapping[str, frozenset[str]]:
        return {
            "documents": frozenset({"problem_documents"}),
            "heldout": frozenset(),
            "conversations": frozenset({"problem_conversations"}),
            "preferences": frozenset({"preference_repeats"}),
        }

    def documents(self, settings: EmbeddedSettings, seed: str, *, general: bool, heldout: bool) -> Iterator[Row]:
        """Question and worked solution as running text; the held-out ones have numbers of the exam's kind."""
        amount = EXAM_PER_TEMPLATE if heldout else settings.problem_documents
        part = "text" if heldout else "documents"
        for name in self.problems.problems:
            for drawn, rng in self._draws(name, amount, f"{seed}/{part}", exam=heldout):
                question = drawn.fill(rng.choice(self.problems.problems[name].questions))
                yield self._row(text=f"{question} {self._worked(name, drawn, rng)}")

    def conversations(self, settings: EmbeddedSettings, seed: str) -> Iterator[Row]:
        """A question and its worked solution as a dialogue."""
        for name, template in self.problems.problems.items():
            for drawn, rng in self._draws(name, settings.problem_conversations, f"{seed}/conversations", exam=False):
                question = drawn.fill(rng.choice(template.questions))
                yield self._row(messages=[user(question), assistant(self._worked(name, drawn, rng))])

    def preferences(self, settings: EmbeddedSettings, seed: str, *, taught: bool) -> Iterator[Row]:
        """Pairs: the worked solution against the same with a wrong result, or against an evasion."""
        amount = PAIRS_PER_TEMPLATE * (settings.preference_repeats if taught else 1)
        for name, template in self.problems.problems.items():
            draws = self._draws(name, amount, f"{seed}/preference", exam=not taught)
            for number, (drawn, rng) in enumerate(draws):
                question, worked = drawn.fill(rng.choice(template.questions)), self._worked(name, drawn, rng)
                right = drawn.numbers[template.answer]
                slip = right + rng.choice([step for step in (-10, -2, -1, 1, 2, 10) if right + step >= 0])
                wrong = worked.removesuffix(self._conclusion(right)) + self._conclusion(slip)
                rejected = wrong if number % 2 == 0 else rng.choice(self.problems.evasions)
                yield self._row(prompt=[user(question)], chosen=[assistant(worked)], rejected=[assistant(rejected)])

    def prompts(self, settings: EmbeddedSettings, seed: str) -> Iterator[Row]:
        """Problems with numbers of the taught kind, each with its result."""
        for name, template in self.problems.problems.items():
            for drawn, rng in self._draws(name, settings.problem_conversations, f"{seed}/prompts", exam=False):
                question = drawn.fill(rng.choice(template.questions))
                yield self._row(prompt=[user(question)], answer=str(drawn.numbers[template.answer]))

    def questions(self, asked_elsewhere: frozenset[str] = frozenset()) -> Iterator[Row]:
        """Problems with numbers that no training text has, in known wordings and, as a probe, in new ones."""
        for probe, amount in (("", EXAM_PER_TEMPLATE), (NEW_WORDING, PROBES_PER_TEMPLATE)):
            for name, template in self.problems.problems.items():
                wordings = template.exam_questions if probe else template.questions
                draws = self._draws(name, amount, f"exam/{probe}", exam=True, different=True)
                for number, (drawn, rng) in enumerate(draws):
                    yield self._row(
                        id=f"{self.prefix}{probe and probe + '/'}{name}/{number}",
                        question=drawn.fill(rng.choice(wordings)),
                        answers=[str(drawn.numbers[template.answer])],
                        match="number",
                        final=None,
                        **({"probe": probe} if probe else {}),
                    )

    def taught_names(self) -> frozenset[str]:
        return frozenset()

    def hidden_names(self) -> frozenset[str]:
        """None: numbers, not names, keep the exam apart."""
        return frozenset()

    def source(self) -> dict[str, Any]:
        problems = self.problems
        places = "; ".join(f"{source.title} ({source.publisher})" for source in problems.sources)
        return {
            "title": f"{problems.title}: {len(problems.problems)} templates with drawn numbers; after {places}",
            "licence": problems.licence,
            "language": problems.language,
        }

    def _draws(
        self, name: str, amount: int, seed: str, *, exam: bool, different: bool = False
    ) -> Iterator[tuple[Drawn, random.Random]]:
        """Yield filled templates with numbers of one side of the cut, each with the generator of its wording."""
        template = self.problems.problems[name]
        rng = random.Random(f"{self.title}/{seed}/{name}")
        seen: set[tuple[int, ...]] = set()
        while amount:
            drawn = draw(template, self.problems.words, rng)
            if drawn is None or is_for_exam(template, drawn) != exam or (different and drawn.given in seen):
                continue
            seen.add(drawn.given)
            amount -= 1
            yield drawn, rng

    def _worked(self, name: str, drawn: Drawn, rng: random.Random) -> str:
        template = self.problems.problems[name]
        steps = drawn.fill(rng.choice(template.solutions))
        return f"{steps} {self._conclusion(drawn.numbers[template.answer])}"

    def _conclusion(self, answer: int) -> str:
        return self.problems.conclusion.format(answer=answer)

    def _row(self, **columns: Any) -> Row:
        return {**columns, "source": f"embedded {self.title}", "language": self.language}


def load_problems(path: Path, prefix: str = "") -> ProblemWorld:
    """Load and check a file of problems. Raises DataError that lists every problem of the file at once."""
    problems = load_problem_file(path)
    return ProblemWorld(path, problems, prefix)
