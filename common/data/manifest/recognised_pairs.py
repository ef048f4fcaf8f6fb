"""Tell which columns of a file make preferences, two answers to a prompt or one with a label, or a text's translation.

Usage: `columns = preference_columns(fields, source.columns)`; raises `Unclear` with what is in doubt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.data.manifest.columns import USUAL_SYSTEM
from common.data.manifest.fields import Fields, Unclear
from common.data.manifest.messages import role_of
from common.data.manifest.pairs import label_of, neither

CHOSEN = (
    "chosen", "preferred_output", "preferred", "accepted", "chosen_response", "preferred_response", "chosen_messages",
)  # fmt: skip
REJECTED = (
    "rejected", "non_preferred_output", "dispreferred", "rejected_response", "dispreferred_response",
    "rejected_messages",
)  # fmt: skip
PROMPTS = ("prompt", "instruction", "question", "query", "conversations", "conversation", "messages", "input")
COMPLETIONS = ("completion", "response", "output", "answer")
LABELS = ("label", "kto_tag", "kto_label", "desirable", "is_desirable", "thumbs_up")
PARALLEL = (("source", "target"), ("src", "tgt"), ("original", "translation"))
Named = dict[str, Any]


def preference_columns(fields: Fields, given: Mapping[str, Any]) -> Named:
    """Return the columns of pairs, or of single answers; those that are given need not be found."""
    names = {side: fields.first(usual) for side, usual in (("chosen", CHOSEN), ("rejected", REJECTED))}
    found = {side: fields.column(name) for side, name in names.items() if name and side not in given}
    if {"chosen", "rejected"} <= found.keys() | given.keys():
        return _pair(fields, names, found, given)
    if found:
        (side,) = found
        raise Unclear(f"'{found[side]}' has no column beside it with the other answer")
    return _labelled(fields, given)


def parallel_columns(fields: Fields, languages: Sequence[str]) -> Named:
    """Return the columns of a text and its translation: by the codes of their languages, or by usual names.

    Data sets of translations on the Hub have one column with an object that holds both by language.
    """
    if len(languages) == 2 and fields.holds("translation", dict):
        inner = [*fields.values("translation")[0]]
        if set(languages) <= set(inner):
            column = fields.column("translation")
            return {side: f"{column}.{code}" for side, code in zip(("source", "target"), languages, strict=True)}
        raise Unclear(f"'translation' holds {', '.join(inner)}, and the form asks for {' and '.join(languages)}")
    for names in (languages, *PARALLEL):
        if len(names) == 2 and all(fields.holds(name, (str, list)) for name in names):
            return {side: fields.column(name) for side, name in zip(("source", "target"), names, strict=True)}
    raise Unclear("none are a text and its translation")


def _pair(fields: Fields, names: Mapping[str, str | None], found: Named, given: Mapping[str, Any]) -> Named:
    chosen = names["chosen"] if "chosen" in found else None
    if chosen and len(found) == 2 and "prompt" not in given:
        if all(isinstance(value, str) and value.lstrip().startswith("Human:") for value in fields.values(chosen)):
            return {f"transcript_{side}": column for side, column in found.items()}
        if fields.is_conversation(chosen) and not all(map(_begins_with_answer, fields.values(chosen))):
            return found | _system(fields)
    if "prompt" in given:
        return found | _system(fields)
    if fields.holds("input", dict) and all("messages" in value for value in fields.values("input")):
        column = fields.column("input")  # as OpenAI's service takes them
        tools = {"tools": f"{column}.tools"} if any(value.get("tools") for value in fields.values("input")) else {}
        return found | {"prompt": f"{column}.messages"} | tools
    return found | {"prompt": _prompt(fields)} | _system(fields)


def _prompt(fields: Fields) -> str | tuple[str, str]:
    asked = [name for name in PROMPTS if fields.is_answer(name)]
    if asked[:1] == ["instruction"] and fields.fits("input", str):  # what it is about follows an instruction
        return fields.column("instruction"), fields.column("input")
    if asked[:1] == ["prompt"]:
        asked = [name for name in asked if not fields.is_conversation(name)] or asked[:1]
    if len(asked) > 1:
        raise Unclear(f"{fields.both(asked)} could be the prompt")
    if not asked:
        raise Unclear("none is the prompt")
    return fields.column(asked[0])


def _system(fields: Fields) -> Named:
    name = next((name for name in USUAL_SYSTEM if fields.fits(name, str)), None)
    return {"system": fields.column(name)} if name else {}


def _begins_with_answer(value: Any) -> bool:
    """Whether messages begin with the assistant, so that the prompt stands elsewhere."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, Mapping) and role_of(first) == "assistant"


def _labelled(fields: Fields, given: Mapping[str, Any]) -> Named:
    label = next((name for name in LABELS if fields.values(name)), None)
    if label is None and "label" not in given:
        raise Unclear("none is a pair of answers, or a label of one")
    odd = [value for value in fields.values(label) if label_of(value) is None] if label is not None else []
    if label is not None and odd:
        raise Unclear(f"'{fields.column(label)}' is neither true nor false: {neither(odd[0])[1]}")
    named = {"label": fields.column(label)} if label is not None else {}
    answers = [name for name in COMPLETIONS if fields.is_answer(name)]
    talks = [name for name in fields.conversations() if name not in (*COMPLETIONS, "prompt")]
    if talks and not answers and "completion" not in given:
        return named | {"messages": fields.column(talks[0])}
    if len(answers) != 1 and "completion" not in given:
        raise Unclear(f"{fields.both(answers)} could be the answer" if answers else "none is the answer")
    completion = {"completion": fields.column(answers[0])} if "completion" not in given else {}
    prompt = {"prompt": _prompt(fields)} if "prompt" not in given else {}
    return named | completion | prompt | _system(fields)
