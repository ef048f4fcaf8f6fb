"""Check that the turns of a conversation follow each other as templates write them, and repair those that do not.

Usage: `turns = in_order(messages, fix=source.turns == "fix", changes=changes)`; raises `UnusableRow` with the reason.

After system text the user begins; the assistant answers, or calls tools, whose results it answers. What a message holds
is `common.data.manifest.messages`.
"""

from __future__ import annotations

from common.data.accounting import ENDS_IN, STARTS_WITH, TWO_OF_ONE
from common.data.manifest.messages import Message
from common.data.manifest.values import UnusableRow

_ALIKE = {
    "user": f"{TWO_OF_ONE}user turns in a row",
    "assistant": f"{TWO_OF_ONE}assistant turns in a row",
    "system": f"{TWO_OF_ONE}system turns in a row",
}


def in_order(messages: list[Message], *, fix: bool, changes: list[str], answered: bool = True) -> list[Message]:
    """Return the turns of a conversation in an order that can be learned; `answered` asks for an answer at its end.

    With `fix` turns before the user's first and after the assistant's last are left out, empty ones too, and turns of
    one side in a row are joined; each is added to `changes`.
    """
    turns = _without_empty_system(messages, changes)
    if fix:
        turns = _repaired(turns, changes, answered=answered)
    _check(turns, answered=answered)
    return turns


def fold_system(turns: list[Message], changes: list[str]) -> list[Message]:
    """Put the system text at the start of the user's first turn."""
    if len(turns) < 2 or turns[0]["role"] != "system" or turns[1]["role"] != "user":
        return turns
    changes.append("system text joined to the first user turn")
    return [{**turns[1], "content": f"{turns[0]['content'].strip()}\n\n{turns[1]['content']}"}, *turns[2:]]


def _without_empty_system(messages: list[Message], changes: list[str]) -> list[Message]:
    kept = [turn for turn in messages if turn["role"] != "system" or turn["content"].strip()]
    if len(kept) < len(messages):
        changes.append("empty system turns left out")
    return kept


def _is_empty(turn: Message) -> bool:
    return turn["role"] in ("user", "assistant") and not turn["content"].strip() and not turn.get("tool_calls")


def _repaired(turns: list[Message], changes: list[str], *, answered: bool) -> list[Message]:
    kept = [turn for turn in turns if not _is_empty(turn)]
    if len(kept) < len(turns):
        changes.append("empty turns left out")
    start = next((place for place, turn in enumerate(kept) if turn["role"] != "system"), len(kept))
    first = next((place for place, turn in enumerate(kept) if turn["role"] == "user"), len(kept))
    if first > start:
        changes.append("turns before the user's first left out")
        kept = kept[:start] + kept[first:]
    last = max((place for place, turn in enumerate(kept) if turn["role"] == "assistant"), default=-1)
    if answered and 0 <= last < len(kept) - 1:
        changes.append("turns after the last answer left out")
        kept = kept[: last + 1]
    joined: list[Message] = []
    for turn in kept:
        if joined and _can_join(joined[-1], turn):
            joined[-1] = _joined(joined[-1], turn)
            changes.append("turns of one side in a row joined")
        else:
            joined.append(turn)
    return joined


def _can_join(before: Message, turn: Message) -> bool:
    alike = before["role"] == turn["role"] and turn["role"] in _ALIKE
    return alike and not before.get("tool_calls") and before.get("learn", True) == turn.get("learn", True)


def _joined(before: Message, turn: Message) -> Message:
    together = {**before, **turn}
    for key in ("content", "reasoning_content"):
        if texts := [text for text in (before.get(key), turn.get(key)) if text]:
            together[key] = "\n\n".join(texts)
    return together


def _check(turns: list[Message], *, answered: bool) -> None:
    body = turns[1:] if turns and turns[0]["role"] == "system" else turns
    if not body:
        raise UnusableRow("a system turn alone" if turns else "empty messages")
    before = turns[0]["role"] if len(body) < len(turns) else ""
    for turn in body:
        role = turn["role"]
        if role == before and role in _ALIKE:
            raise UnusableRow(_ALIKE[role])
        if role == "system":
            raise UnusableRow("a system turn after the start")
        if before in ("", "system") and role != "user":
            raise UnusableRow(STARTS_WITH + ("the assistant" if role == "assistant" else "a tool turn"))
        if _is_empty(turn):
            raise UnusableRow(f"an empty {role} turn")
        if role == "tool" and before == "user":
            raise UnusableRow("a tool turn without a call")
        before = role
    if answered and before != "assistant":
        raise UnusableRow(f"{ENDS_IN}{before} turn")
