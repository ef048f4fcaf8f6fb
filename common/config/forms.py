"""What is known of each form: how a record of a source becomes a text that CPT reads, or a conversation.

Usage: `form_named("qa").settings`; `choice = checked("qa")`; `form, own = chosen(choice)`.

A new form is one module in `common/data/forms/`, named after it, with `FORM = Form(...)`. The registry lists that
package when it is first asked, so this room names no form. A source names its form; what its columns hold is read as
for any other source (`common.data.manifest.shapes`), and the form writes it down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from common.config.base import Frozen
from common.config.defaults import differing
from common.config.registry import declared
from common.config.validation import validated
from common.errors import did_you_mean

FORMS = "common.data.forms"
Row = dict[str, Any]
ROLES = {"text": ("cpt", "pretrain", "replay"), "chat": ("sft", "replay")}  # whose sources may have a form, by its kind


class FormSettings(Frozen):
    """Base of the settings of a form."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form: what every other part of the program asks about it."""

    name: str  # as a manifest says it; its module is called the same
    settings: type[FormSettings]
    phrase: str  # what it makes, for people: "questions and answers as plain text"
    takes: Sequence[str]  # kinds of rows that its columns may make; see `common.data.manifest.columns`
    # (row of such a kind, settings) -> the keys of the new row, with `text` or `messages`. One whose sentences stand
    # apart now has the texts as they were in `unwoven` (`common.data.texts`). UnusableRow: why there is none.
    write: Callable[[Row, Any], Row]
    paper: str  # where it is defined
    makes: Literal["text", "chat"] = "text"
    ours: str = ""  # what of it is ours, and not the paper's
    # settings -> how many records in a row make one, where each holds a sentence; 1: each is for itself.
    joins: Callable[[Any], int] = lambda own: 1
    # settings -> what of them decides the texts of `unwoven`, by which a row is known in either direction.
    cuts: Callable[[Any], Any] | None = None


def forms() -> Mapping[str, Form]:
    """Return all forms by name."""
    return declared(FORMS, "FORM")


def form_named(name: str) -> Form:
    """Return a form by its name. Raises KeyError for one that does not exist."""
    return forms()[name]


def checked(given: Any) -> dict[str, dict[str, Any]] | None:
    """Return the choice of a form as its name with the settings that are not its defaults.

    Taken is a name, or a name with settings below it. Raises ValueError for what is neither, and what a form refuses.
    """
    if given is None:
        return None
    given = {given: {}} if isinstance(given, str) else given
    if not isinstance(given, Mapping) or len(given) != 1:
        raise ValueError("expected the name of a form, such as qa, or a name with its settings below it")
    ((name, values),) = given.items()
    if name not in forms():
        raise ValueError(f"there is no form '{name}'.{did_you_mean(str(name), forms())}")
    return {name: differing(validated(form_named(name).settings, {} if values is None else values, prefix=name))}


FormChoice = Annotated[
    dict[str, dict[str, Any]] | None, BeforeValidator(checked, json_schema_input_type=str | dict[str, Any] | None)
]


def chosen(choice: Mapping[str, Mapping[str, Any]]) -> tuple[Form, FormSettings]:
    """Return the form of a checked choice, with its settings."""
    ((name, values),) = choice.items()
    form = form_named(name)
    return form, form.settings.model_validate(values)


def described(choice: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what results and cards say of the form of a source."""
    form, own = chosen(choice)
    return {
        "name": form.name, "phrase": form.phrase, "paper": form.paper,
        **({"ours": form.ours} if form.ours else {}), "settings": own.model_dump(mode="json"),
    }  # fmt: skip
