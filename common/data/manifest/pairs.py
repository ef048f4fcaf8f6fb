"""Make rows of preferences: a prompt with a better and a worse answer, or one answer with a label.

Usage: `row = preference_row(source, record)`; raises `UnusableRow` with the reason when the record compares nothing.

Which of the two a source gives, its columns say (`Source.unpaired`). Scores beside a pair are only compared.
"""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

from common.data.accounting import EQUAL_SCORES, REVERSED_SCORES
from common.data.corpus import Row
from common.data.manifest.cells import cell, joined_cells
from common.data.manifest.columns import SCORES
from common.data.manifest.conversations import arranged, folded, with_changes, with_tools
from common.data.manifest.messages import Message, is_conversation, read_messages, truth
from common.data.manifest.readers import Record
from common.data.manifest.schema import Source
from common.data.manifest.turn_order import in_order
from common.data.manifest.values import UnusableRow, lookup, text_of

_TURN = re.compile(r"\n\n(Human|Assistant):[ ]?")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
SHORTEST_REPEATED = 4  # words of a prompt that is cut from its answers; a shorter one may be how they begin
_LABELS = {
    "desirable": True, "undesirable": False, "good": True, "bad": False, "chosen": True, "rejected": False,
    "thumbs_up": True, "thumbs_down": False, "up": True, "down": False, "like": True, "dislike": False,
    "positive": True, "negative": False, "-1": False, "-1.0": False,
}  # fmt: skip
TAKEN = "true and false, 1 and 0 or -1, yes and no, " + ", ".join(
    f"{good} and {bad}" for good, bad in itertools.pairwise(name for name in _LABELS if name[0] != "-") if _LABELS[good]
)


def preference_row(source: Source, record: Record) -> Row:
    """Return a pair, or an answer with its label."""
    changes: list[str] = []
    row = _unpaired(source, record, changes) if source.unpaired else _pair(source, record, changes)
    row["prompt"] = folded(source, row["prompt"], changes)
    for name in row.keys() & {"chosen", "rejected", "completion"}:
        if any(turn.get("learn") is False for turn in row[name]):
            raise UnusableRow(f"{name} is marked not to be learned")
    row["prompt"] = [{key: found for key, found in turn.items() if key != "learn"} for turn in row["prompt"]]
    return with_changes(with_tools(source, record, row, changes), changes)


def _pair(source: Source, record: Record, changes: list[str]) -> Row:
    if "transcript_chosen" in source.columns:
        fix = source.turns == "fix"
        chosen, rejected = (
            in_order(_transcript(cell(source, record, f"transcript_{side}")), fix=fix, changes=changes)
            for side in ("chosen", "rejected")
        )
    else:
        prompt = _prompt(source, record, changes)
        answers = [cell(source, record, side) for side in ("chosen", "rejected")]
        answers = _without_prompt(prompt, answers, changes)
        chosen = _whole(source, record, answers[0], "chosen", prompt, changes)
        rejected = _whole(source, record, answers[1], "rejected", prompt, changes)
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == len(chosen) == len(rejected):
        raise UnusableRow("chosen equals rejected")
    prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    if not prompt or prompt[-1]["role"] not in ("user", "tool"):
        raise UnusableRow("chosen and rejected answer different prompts")
    if any(len(side) != 1 or side[0]["role"] != "assistant" for side in (chosen, rejected)):
        raise UnusableRow("chosen and rejected differ before the last answer")
    _compare_scores(source, record)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _unpaired(source: Source, record: Record, changes: list[str]) -> Row:
    given = cell(source, record, "label")
    label = label_of(given)
    if label is None:
        raise UnusableRow("empty label") if given in (None, "") else UnusableRow(*neither(given))
    if "messages" in source.columns:
        read = read_messages(cell(source, record, "messages"), "messages", changes)
        turns = arranged(source, record, read, changes)
    else:
        prompt = _prompt(source, record, changes)
        (answer,) = _without_prompt(prompt, [cell(source, record, "completion")], changes)
        turns = _whole(source, record, answer, "completion", prompt, changes)
    if len(turns) < 2 or turns[-2]["role"] not in ("user", "tool"):
        raise UnusableRow("empty prompt")
    return {"prompt": turns[:-1], "completion": turns[-1:], "label": label}


def neither(label: Any) -> tuple[str, str]:
    """Return what is said of a label that means nothing, and which it is."""
    return "label is neither true nor false", f"{str(label)[:30]!r} is not among {TAKEN}"


def label_of(value: Any) -> bool | None:
    """Return what a label says of an answer: true for one to learn; None where it says neither."""
    return _LABELS.get(str(value).strip().casefold().replace(" ", "_"), truth(value))


def _prompt(source: Source, record: Record, changes: list[str]) -> list[Message]:
    """Return the turns before the answers; none where the answers are whole conversations."""
    given = cell(source, record, "prompt")
    if isinstance(source.columns.get("prompt"), str) and (is_conversation(given) or not isinstance(given, str | None)):
        messages = read_messages(given, "prompt", changes)
    else:
        text = joined_cells(source, record, "prompt")
        messages = [{"role": "user", "content": text}] if text else []
    return arranged(source, record, messages, changes, answered=False) if messages else []


def _whole(
    source: Source, record: Record, value: Any, name: str, prompt: list[Message], changes: list[str]
) -> list[Message]:
    """Return a conversation up to an answer: a text is one answer; a conversation may repeat the prompt first."""
    if isinstance(value, str | None) and not is_conversation(value):
        return [*prompt, {"role": "assistant", "content": text_of(value, name).strip()}]
    messages = read_messages(value, name, changes)
    if messages[0]["role"] == "assistant" and prompt:
        return in_order([*prompt, *messages], fix=False, changes=changes)
    messages = arranged(source, record, messages, changes)
    own, theirs = ([turn for turn in side if turn["role"] != "system"] for side in (prompt, messages))
    if own and [_plain(turn) for turn in theirs[: len(own)]] != [_plain(turn) for turn in own]:
        raise UnusableRow(f"{name} does not begin with the prompt")
    systems = [turn for turn in (*messages[:1], *prompt[:1]) if turn["role"] == "system"][:1]
    return [*systems, *own, *theirs[len(own) :]]


def _plain(turn: Message) -> Message:
    """A turn as it is compared: as contents count without outer blanks, a prompt given twice is still the same."""
    return {**turn, "content": turn["content"].strip()}


def _without_prompt(prompt: list[Message], answers: list[Any], changes: list[str]) -> list[Any]:
    """Return answers as texts without the prompt that all of them repeat at their start."""
    asked = prompt[-1]["content"].strip() if prompt else ""
    texts = [answer.strip() for answer in answers if isinstance(answer, str)]
    rest = [text.removeprefix(asked) for text in texts]
    if len(asked.split()) < SHORTEST_REPEATED or len(texts) < len(answers):
        return answers
    if not all(text.startswith(asked) and left[:1].isspace() for text, left in zip(texts, rest, strict=True)):
        return answers
    changes.append("the prompt cut from the start of its answers")
    return [left.strip() for left in rest]


def _compare_scores(source: Source, record: Record) -> None:
    """Raise UnusableRow where the scores beside a pair do not put its better answer first."""
    named = tuple(source.columns.get(f"score_{side}") for side in ("chosen", "rejected"))
    names = [named] if any(named) else [pair for pair in SCORES if all(name in record.value for name in pair)]
    for pair in names:
        better, worse = (_number(lookup(record.value, str(name))) for name in pair)
        if better is None or worse is None:
            continue
        if better == worse:
            raise UnusableRow(EQUAL_SCORES)
        if better < worse:
            raise UnusableRow(REVERSED_SCORES)


def _number(value: Any) -> float | None:
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _transcript(value: Any) -> list[Message]:
    """Split a transcript like those of hh-rlhf, "\\n\\nHuman: ...\\n\\nAssistant: ...", into messages."""
    pieces = _TURN.split("\n\n" + text_of(value, "transcript").lstrip("\n"))
    if pieces[0].strip() or len(pieces) < 3:
        raise UnusableRow("transcript does not begin with a turn")
    turns = zip(pieces[1::2], pieces[2::2], strict=True)
    return [{"role": _SPEAKERS[who], "content": text.strip()} for who, text in turns]
