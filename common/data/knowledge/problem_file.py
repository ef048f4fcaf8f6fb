"""A file of problem templates: read, checked, and filled with numbers.

Usage: `file = load_checked(path, ProblemFile)`; `drawn = draw(template, file.words, rng)`.

A template names its numbers with their ranges, what is derived from them, conditions, wordings, worked solutions and
which number is the answer. Rendering rows from it is `common.data.knowledge.problems`.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from common.config.base import Frozen
from common.config.names import NonEmpty
from common.data.knowledge import arithmetic
from common.data.knowledge.arithmetic import Expression, NotWhole
from common.data.knowledge.file_problems import Head, Lost, read_slots
from common.errors import DataError, did_you_mean
from common.store import cache
from common.store.cache import known_digest

MIN_WORDINGS = 3
MIN_SETS = 200  # different sets of numbers, so that both sides of the cut have enough
TRIALS = 4000
EXAM_SHARE = 0.15  # of a template's sets of numbers
EXAM_PER_TEMPLATE = 15
PROBES_PER_TEMPLATE = 5
MIN_YIELD = 0.02  # least share of draws that meet the conditions


class Template(Frozen):
    """One kind of problem."""

    label: NonEmpty = Field(description="what kind of problem it is")
    source: NonEmpty = Field(description="id of the source that teaches this kind")
    numbers: dict[str, tuple[int, int]] = Field(description="name -> least and greatest value, both included")
    words: dict[str, str] = Field(default_factory=dict, description="name -> list of `words` that it is drawn from")
    derive: dict[str, str] = Field(default_factory=dict, description="name -> expression of the numbers before it")
    where: tuple[str, ...] = Field((), description="conditions; numbers that break one are drawn again")
    questions: tuple[str, ...] = Field(description="wordings for training, and for the exam's held-out numbers")
    exam_questions: tuple[str, ...] = Field(description="wordings that only the exam uses")
    solutions: tuple[str, ...] = Field(description="worked solutions, without the closing answer")
    answer: NonEmpty = Field(description="the number that is asked for")


class ProblemFile(Head):
    """A file of problems as written."""

    kind: Literal["problems"] = Field(description="what the file holds")
    conclusion: str = Field("The answer is {answer}.", description="ends every worked solution")
    words: dict[str, Annotated[tuple[str, ...], Field(min_length=2)]] = Field(
        default_factory=dict, description="name -> list of words that templates draw from"
    )
    problems: dict[str, Template] = Field(description="name -> template")

    def find_problems(self, lost: Lost) -> list[str]:
        problems = super().find_problems(lost)
        slots, wrong = read_slots(self.conclusion, {"answer"})
        problems += [f"conclusion: {line}" for line in wrong if "conclusion" not in lost]
        if not wrong and not slots:
            problems.append(f"conclusion: {self.conclusion!r} must have the slot {{answer}} and no other")
        if not self.problems and "problems" not in lost:
            problems.append("problems: empty, expected at least one")
        for name, words in self.words.items():
            if not all(word.strip() for word in words):
                problems.append(f"words.{name}: a word is empty")
        for name, template in self.problems.items():
            lines = self.source_problems(template.source, lost)
            unsound = [*_name_problems(template, self, lost), *_expression_problems(template)]
            unsound = unsound or [*_wording_problems(template)]
            lines += unsound or ([] if "words" in lost else _range_problems(template, self))
            problems += [f"problem {name}: {line}" for line in lines]
        return problems


@dataclass(frozen=True)
class Drawn:
    """One filled template: all numbers by name, the words, and the numbers that were drawn rather than derived."""

    numbers: Mapping[str, int]
    words: Mapping[str, str]
    given: tuple[int, ...]

    def fill(self, text: str) -> str:
        """Put numbers and words into a wording; a sentence begins with a capital."""
        filled = text.format(**self.numbers, **self.words)
        return filled[0].upper() + filled[1:]


_parsed = functools.cache(Expression)


def draw(template: Template, words: Mapping[str, Sequence[str]], rng: random.Random) -> Drawn | None:
    """Draw numbers and words; None where a condition is broken or a division is not exact."""
    numbers = {name: rng.randint(*limits) for name, limits in template.numbers.items()}
    given = tuple(numbers.values())
    chosen: dict[str, str] = {}
    for name, kind in template.words.items():
        taken = set(chosen.values())
        chosen[name] = rng.choice([word for word in words[kind] if word not in taken])
    try:
        for name, expression in template.derive.items():
            numbers[name] = _parsed(expression).value(numbers)
        if not all(_parsed(condition).value(numbers) for condition in template.where):
            return None
    except NotWhole:
        return None
    return Drawn(numbers, chosen, given)


def is_for_exam(template: Template, drawn: Drawn) -> bool:
    """Whether a set of numbers belongs to the exam.

    Told by the numbers and the result alone, in whatever order and for whatever template: two templates with the same
    working (a product and an area) must not show each other's exam.
    """
    facts = (sorted(drawn.given), drawn.numbers[template.answer])
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) < EXAM_SHARE * 2**64


def _name_problems(template: Template, file: ProblemFile, lost: Lost) -> Iterator[str]:
    """Names are slots and variables, each of one thing; words suffice; ranges hold numbers that can be written."""
    given = Counter([*template.numbers, *template.derive, *template.words])
    for name, count in given.items():
        if count > 1:
            yield f"'{name}' stands in more than one of numbers, derive and words; give each its own name"
        if not name.isidentifier():
            yield f"'{name}' is no name for a slot; write letters, digits and _, beginning with a letter"
    before: list[set[str]] = []
    for name, kind in template.words.items():
        if kind not in file.words:
            if "words" not in lost:
                yield f"words.{name}: there is no list '{kind}'.{did_you_mean(kind, file.words)}"
            continue
        words = set(file.words[kind])
        taken = sum(not words.isdisjoint(other) for other in before)  # two slots never have the same word
        if taken >= len(words):
            yield f"words.{name}: the list '{kind}' has {len(words)} different words, too few for {taken + 1} slots"
        before.append(words)
    for name, (least, greatest) in template.numbers.items():
        if least > greatest:
            yield f"numbers.{name}: {least} to {greatest} holds no number"
        if least < 0:
            yield f"numbers.{name}: {least} to {greatest} goes below zero; write the minus sign into the wordings"
    names = {*template.numbers, *template.derive}
    if template.answer not in names:
        yield f"answer '{template.answer}' is no number of it.{did_you_mean(template.answer, names)}"


def _expression_problems(template: Template) -> Iterator[str]:
    known = set(template.numbers)
    steps = [(f"derive.{name}", name, text) for name, text in template.derive.items()]
    for where, name, text in [*steps, *(("where", "", text) for text in template.where)]:
        try:
            names = Expression(text).names
        except DataError as error:
            yield f"{where}: {error}"
            names = frozenset()
        for unknown in sorted(names - known):
            yield f"{where}: '{text}' reads unknown number '{unknown}'.{did_you_mean(unknown, known - {''})}"
        known.add(name)


def _wording_problems(template: Template) -> Iterator[str]:
    known = {*template.numbers, *template.derive, *template.words}
    if len(set(template.questions)) < MIN_WORDINGS:
        yield f"{len(set(template.questions))} different questions, expected at least {MIN_WORDINGS}"
    for key in ("exam_questions", "solutions"):
        if not getattr(template, key):
            yield f"{key}: empty, expected at least one"
    for wording in sorted(set(template.questions) & set(template.exam_questions)):
        yield f"exam_questions: {wording!r} is among the questions for training too"
    for key in ("questions", "exam_questions", "solutions"):
        for text in getattr(template, key):
            slots, wrong = read_slots(text, known)
            yield from (f"{key}: {line}" for line in wrong)
            if wrong or key == "solutions":
                continue
            for missing in sorted(template.numbers.keys() - slots):
                yield f"{key}: {text!r} does not give the number {{{missing}}}"
            if template.answer in slots and template.answer not in template.numbers:
                yield f"{key}: {text!r} tells its own answer"


def _range_problems(template: Template, file: ProblemFile) -> list[str]:
    """Return what is wrong with a template's numbers. It takes thousands of draws, and is known the next time."""
    words = {kind: file.words[kind] for kind in template.words.values()}
    code = [known_digest(Path(module)) for module in (__file__, arithmetic.__file__)]
    facts = [template.model_dump_json(), words, code]  # of a template as text, as draws go by its order
    made = cache.remembered(
        "problems", facts, lambda: {"found": _problems_of_draws(template, words)}, lambda kept: "".join(kept["found"])
    )
    return list(made["found"])


def _problems_of_draws(template: Template, words: Mapping[str, Sequence[str]]) -> list[str]:
    rng = random.Random(template.label)
    kept = [drawn for _ in range(TRIALS) if (drawn := draw(template, words, rng)) is not None]
    if len(kept) < MIN_YIELD * TRIALS:
        return [f"only {len(kept)} of {TRIALS} draws meet its conditions; narrow the ranges of its numbers"]
    lowest = min(drawn.numbers[template.answer] for drawn in kept)
    if lowest < 0:
        return [f"its answer can be below zero, such as {lowest}; add the condition '{template.answer} >= 0' to where"]
    different = len({drawn.given for drawn in kept})
    if different < MIN_SETS:
        return [f"only {different} different sets of numbers, expected at least {MIN_SETS}; widen the ranges"]
    for_exam = len({drawn.given for drawn in kept if is_for_exam(template, drawn)})
    if for_exam < EXAM_PER_TEMPLATE:
        return [f"only {for_exam} sets of numbers fall to the exam, expected {EXAM_PER_TEMPLATE}; widen the ranges"]
    return []
