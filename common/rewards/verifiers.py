"""Rewards that a program computes, each a function from an answer to a number from 0 to 1.

Usage: `VERIFIERS["number"](Answer("It is 42.", row))`; `options_of("pattern")` describes a verifier's options.

A prompt row has the right `answer`, or `answers` of which any is right, and may have `choices`. Options are keyword
arguments of the function. There is no state, and nothing from an answer is executed.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, PositiveInt

from common.config.domain_functions import options_of_function
from common.data.answers import exact as same_words
from common.data.answers import f1 as shared_words
from common.data.answers import final_answer, normalise_text, parse_number, same_number
from common.errors import DataError
from common.rewards.calculation import wrong_steps

Verifier = Callable[..., float]
VERIFIERS: dict[str, Verifier] = {}
NEED_ANSWERS = ("number", "mathematics", "exact", "f1", "choice")  # these compare with known answers
PATIENCE = 5  # seconds for one expression of mathematics


def _compiles(regex: str) -> str:
    try:
        re.compile(regex)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return regex


def _is_schema(definition: dict[str, Any]) -> dict[str, Any]:
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(definition)
    except SchemaError as error:
        raise ValueError(f"is not a JSON schema: {error.message}") from None
    return definition


Regex = Annotated[str, AfterValidator(_compiles)]
Schema = Annotated[dict[str, Any], AfterValidator(_is_schema)]


@dataclass(frozen=True)
class Answer:
    """A model's answer to a prompt: its text, the prompt's row, whether it stopped by itself, and its tokens."""

    text: str
    row: Mapping[str, Any]
    stopped: bool = True
    num_tokens: int = 0
    prompt: Sequence[Mapping[str, str]] = ()  # the messages that it answers


def verifier(function: Verifier) -> Verifier:
    """Register a function under its own name."""
    VERIFIERS[function.__name__] = function
    return function


def options_of(name: str, verifiers: Mapping[str, Verifier] = VERIFIERS) -> type[BaseModel]:
    """Return the model of a verifier's options, so that they can be checked before a run. Raises KeyError."""
    return options_of_function(verifiers[name])


@verifier
def number(answer: Answer, *, after: str | None = None) -> float:
    """1 when the last number (after the mark `after`, if given) equals one of the right answers."""
    text = final_answer(answer.text, after) if after else answer.text
    found = parse_number(text)
    return float(any(same_number(found, parse_number(right)) for right in _right(answer)))


@verifier
def mathematics(answer: Answer) -> float:
    r"""1 when math-verify finds the answer's last expression, plain or LaTeX, `\boxed` first, equal to a right one.

    Two ways of writing one value are equal: 1/2, 0.5 and \frac{1}{2}.
    """
    from math_verify import parse, verify

    # A tower of powers would take for ever. The timeouts are signals, which only a main thread may set.
    seconds = PATIENCE if threading.current_thread() is threading.main_thread() else None
    found = parse(answer.text, parsing_timeout=seconds)
    rights = [parse(right, parsing_timeout=seconds) for right in _right(answer)]
    return float(any(verify(right, found, timeout_seconds=seconds) for right in rights))


@verifier
def exact(answer: Answer) -> float:
    """1 when the words are those of a right answer, without case, punctuation and articles (Rajpurkar et al. 2016)."""
    return float(same_words(answer.text, _right(answer)))


@verifier
def f1(answer: Answer) -> float:
    """The F1 of the words against the right answer that fits best (Rajpurkar et al. 2016)."""
    return shared_words(answer.text, _right(answer))


@verifier
def choice(answer: Answer) -> float:
    """1 when the answer is the right choice: its letter, its words, or both, and no other choice.

    Raises DataError for a prompt without choices.
    """
    if "choices" not in answer.row:
        raise DataError(
            f"The reward 'choice' needs choices; the prompt with the answer {_right(answer)[0]!r} has none. "
            "Name the column `choices` of its source, or use the reward `exact`."
        )
    choices: Sequence[str] = answer.row["choices"]
    chosen = _chosen(answer.text, choices)
    return float(chosen is not None and chosen == _chosen(_right(answer)[0], choices))


@verifier
def pattern(answer: Answer, *, regex: Regex) -> float:
    """1 when the whole answer matches a regular expression; the dot matches line breaks too."""
    return float(re.fullmatch(regex, answer.text.strip(), re.DOTALL) is not None)


@verifier
def json_schema(answer: Answer, *, definition: Schema) -> float:
    """1 when the answer is one JSON value that a JSON schema allows (draft 2020-12)."""
    from jsonschema import Draft202012Validator

    try:
        value = json.loads(answer.text)
    except (ValueError, RecursionError):
        return 0.0
    return float(Draft202012Validator(definition).is_valid(value))


@verifier
def calculation(answer: Answer) -> float:
    """The share of the written steps, such as `12 * 3 = 36`, that are right; 0 where there is none."""
    wrong, total = wrong_steps(answer.text)
    return (total - wrong) / total if total else 0.0


@verifier
def stopped(answer: Answer) -> float:
    """1 when the answer ended by itself instead of running into the limit."""
    return float(answer.stopped)


@verifier
def length(answer: Answer, *, most: PositiveInt, slack: PositiveInt) -> float:
    """1 up to `most` tokens, then falling evenly to 0 over `slack` more.

    The soft overlong punishment of DAPO (Yu et al. 2025, arXiv 2503.14476, equation 13), moved from [-1, 0] to [0, 1].
    """
    over = answer.num_tokens - most
    return 1.0 if over <= 0 else max(0.0, 1.0 - over / slack)


def _right(answer: Answer) -> Sequence[str]:
    given = answer.row.get("answers")
    if given is not None:
        return cast(Sequence[str], given)
    if "answer" not in answer.row:
        raise DataError(
            "This reward compares with known answers, and the prompt has none. Name the column `answer` of its source "
            "of role prompts, or use a reward that needs no answer (pattern, json_schema, calculation, stopped, "
            "length, or a reward model). The same holds for `verify.check`."
        )
    return [answer.row["answer"]]


def _chosen(text: str, choices: Sequence[str]) -> int | None:
    """Return the place of the one choice that a text names by letter, words or both, or None."""
    words = normalise_text(text)
    places = {place for place, choice in enumerate(choices) if normalise_text(choice) == words}
    named = re.match(r"\(?([A-Z])\)?(?:[.:)\s]|$)", text.strip())
    if named and (place := ord(named[1]) - ord("A")) < len(choices):
        rest = normalise_text(text.strip()[named.end() :])
        if not rest or rest == normalise_text(choices[place]):
            places.add(place)
    return places.pop() if len(places) == 1 else None
