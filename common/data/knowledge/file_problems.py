"""Read a knowledge file and say everything that is wrong with it at once, whatever it holds.

Usage: `knowledge = load_checked(path, Knowledge)`.

Here is what the kinds of files have in common: their head, the wordings with slots, and how problems are explained and
listed. What makes a fact or a problem sound is `common.data.knowledge.knowledge` and
`common.data.knowledge.problem_file`.
"""

from __future__ import annotations

import copy
import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import Field, ValidationError

from common.config.base import Frozen
from common.config.names import NonEmpty
from common.config.validation import explain, report
from common.config.yaml import read_yaml
from common.errors import DataError, did_you_mean

MIN_EVASIONS = 2

# Key of the file -> what of it could not be read; checks that need the whole of it are left out.
Lost = Mapping[str, Collection[Any]]


class Reference(Frozen):
    """Where the content of a file can be checked."""

    id: NonEmpty = Field(description="name by which attributes and problems refer to it")
    title: NonEmpty = Field(description="title of the source")
    publisher: NonEmpty = Field(description="who publishes it")


class Checked(Frozen):
    """A file that can say what is wrong with it beyond the kinds of its values."""

    def find_problems(self, lost: Lost) -> list[str]:
        """Return every inconsistency of the file, one line each; `lost` is what of it could not be read."""
        return []


Model = TypeVar("Model", bound=Checked)


class Head(Checked):
    """What every file of embedded knowledge says about itself."""

    title: NonEmpty = Field(description="title of the domain's knowledge, for the card")
    language: NonEmpty = Field("en", description="ISO 639 code of its language")
    licence: str = Field(description="licence of these texts")
    sources: tuple[Reference, ...] = Field(description="where the content can be checked")
    evasions: tuple[str, ...] = Field(description="answers that evade a question: rejected in preference pairs")

    def find_problems(self, lost: Lost) -> list[str]:
        problems = []
        if not self.licence.strip():
            problems.append("licence: empty; say under which licence these texts are given")
        if not self.sources and "sources" not in lost:
            problems.append("sources: empty; name at least one source by which the content can be checked")
        if len(set(self.evasions)) < MIN_EVASIONS and "evasions" not in lost:
            problems.append(f"evasions: {len(set(self.evasions))} different, expected at least {MIN_EVASIONS}")
        return problems

    def source_problems(self, source: str, lost: Lost) -> list[str]:
        """Return what is wrong with a reference to one of the file's sources."""
        known = {reference.id for reference in self.sources}
        if source in known or "sources" in lost:
            return []
        return [f"source '{source}' is not listed.{did_you_mean(source, known)}"]


def load_checked(path: Path, model: type[Model]) -> Model:
    """Read a file and check it. Raises DataError that lists every problem of the file at once."""
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        required = [name for name, field in model.model_fields.items() if field.is_required()]
        raise DataError(f"{path} holds no keys. Expected {', '.join(required)}.")
    problems: list[str] = []
    lost: Lost = {}
    try:
        value: Model | None = model.model_validate(raw)
    except ValidationError as error:
        problems = explain(error, model, raw)
        value, lost = _sound_part(error, model, raw)
    if value is not None:
        problems += value.find_problems(lost)
    if problems or value is None:
        raise DataError(report(path, problems))
    return value


def read_slots(text: str, known: Iterable[str]) -> tuple[frozenset[str], list[str]]:
    """Return the slots of a wording, and what is wrong with them: braces, formats, unknown names, no text at all."""
    if not text.strip():
        return frozenset(), ["a wording is empty"]
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError:
        return frozenset(), [
            f"{text!r} has a brace without its partner; a slot is {{name}}, a brace itself {{{{ or }}}}"
        ]
    slots = set()
    known = set(known)
    for _, name, layout, conversion in parts:
        if name is None:
            continue
        if layout or conversion or not name.isidentifier():
            written = f"{{{name}{f'!{conversion}' if conversion else ''}{f':{layout}' if layout else ''}}}"
            return frozenset(), [f"{written} in {text!r} is not a plain slot; write a name alone, such as {{name}}"]
        slots.add(name)
    unknown = sorted(slots - known)
    return frozenset(slots), [f"unknown slot {{{slot}}} in {text!r}.{did_you_mean(slot, known)}" for slot in unknown]


def _sound_part(
    error: ValidationError, model: type[Model], raw: Mapping[str, Any]
) -> tuple[Model | None, dict[str, set[Any]]]:
    """Return the file without what is malformed, so that the rest is checked too, and what it lost by key.

    An unknown key goes alone, a number stands as its text, and what else is wrong goes with the whole row, attribute or
    template. A key of the file that is missing or goes gets the least value of its kind.
    """
    rest: dict[str, Any] = copy.deepcopy(dict(raw))
    lost: dict[str, set[Any]] = {}
    for item in error.errors():
        key, *inner = item["loc"]
        *parents, last = item["loc"]
        if item["type"] == "extra_forbidden":
            del _at(rest, parents)[last]
        elif item["type"] == "string_type" and last != "[key]" and isinstance(item["input"], int | float):
            _at(rest, parents)[last] = str(item["input"])
        else:
            lost.setdefault(str(key), set()).update(inner[:1])
            if not inner:
                rest.pop(str(key), None)
    for key, elements in lost.items():
        held = rest.get(key)
        if isinstance(held, list):
            rest[key] = [value for number, value in enumerate(held) if number not in elements]
        elif isinstance(held, dict):
            rest[key] = {name: value for name, value in held.items() if name not in elements}
    for name, field in model.model_fields.items():
        if name not in rest and field.is_required():
            rest[name] = _least(field.annotation)
    try:
        return model.model_validate(rest), lost
    except ValidationError:
        return None, lost


def _at(value: Any, place: Sequence[int | str]) -> Any:
    for part in place:
        value = value[part]
    return value


def _least(annotation: Any) -> Any:
    kind = get_origin(annotation)
    if kind is Literal:
        return get_args(annotation)[0]
    return kind() if kind in (tuple, dict) else "?"
