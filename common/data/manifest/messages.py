"""Read the messages of a conversation as files write them: OpenAI's, ShareGPT's, pairs, parts, JSON in a string.

Usage: `turns = read_messages(value, "messages", changes)`; what is not used as it stands is added to `changes`.

A message comes out with role and content, and with tool_calls, reasoning_content, name, tool_call_id and `learn: False`
where the file has them. Whether turns follow each other as they must is `common.data.manifest.turn_order`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from common.data.manifest.calls import parsed, read_calls
from common.data.manifest.values import UnusableRow, as_written, encodable, joined

Message = dict[str, Any]
ROLE_KEYS = ("role", "from", "speaker", "author")
TEXT_KEYS = ("content", "value", "text", "message", "parts")
CALLING = "function_call"
PARTS_JOINED = "parts of a turn joined by a blank line"  # nothing in a file says what stands between them
SPEAKERS = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot", "chatbot", "ai"),
    "tool": ("tool", "function", "observation", "function_response", "tool_response", "tool_result", "ipython"),
    CALLING: (CALLING, "tool_call"),
}  # fmt: skip
_ROLES = {name: role for role, names in SPEAKERS.items() for name in names}
# A question and its answer in one item, as some files write a turn of both.
ASKING = ("human", "user", "instruction", "input", "question", "prompt")
ANSWERING = ("assistant", "gpt", "bot", "output", "answer", "response")
REASONING = ("reasoning_content", "reasoning", "thinking")
# Whether a turn is learned, by key: what true means.
WEIGHTS = {
    "weight": True, "train": True, "learn": True, "trainable": True, "loss": True, "loss_weight": True,
    "output_with_loss": True, "mask": False, "masked": False,
}  # fmt: skip
_PARTLY = ("train_detail", "training_detail", "train_offsets")  # which words of a turn are learned
_MEDIA = ("audio", "image", "images", "image_url", "video", "videos", "file", "files", "attachments", "refusal")
# They say when, where or by whom something was said; nothing of it is learned.
_METADATA = frozenset({
    "id", "uuid", "idx", "index", "turn", "turn_id", "message_id", "parent_id", "conversation_id", "name", "model",
    "timestamp", "time", "date", "create_time", "created", "created_at", "updated_at", "lang", "language", "metadata",
    "meta", "hash", "token_count", "num_tokens", "tokens", "usage", "finish_reason", "stop_reason", "annotations",
    "tool_call_id", "source", "likes", "rank", "emoji", "toxic", "moderation", "type", "end_turn", "recipient",
    "status", "update_time", "channel",
})  # fmt: skip


def is_conversation(value: Any, *, pairs: bool = True) -> bool:
    """Whether a value is a list of messages, by its first item; a text is one only where it names known speakers.

    `pairs` says whether questions with their answers count too.
    """
    found = parsed(value)
    if not isinstance(found, list) or not found or not is_message(found[0]):
        return False
    speaker = _speaker(found[0])
    return role_of(found[0]) is not None if isinstance(value, str) else pairs or speaker is not None


def is_message(value: Any) -> bool:
    """Whether a value is one message, or a question with its answer."""
    if not isinstance(value, Mapping):
        return False
    return (_speaker(value) is not None and _key(value, (*TEXT_KEYS, "tool_calls")) is not None) or (
        _key(value, ASKING) is not None and _key(value, ANSWERING) is not None
    )


def read_messages(value: Any, name: str, changes: list[str]) -> list[Message]:
    """Return the messages of a conversation. Raises UnusableRow for what is none, or cannot be said in our rows."""
    found = parsed(value)
    found = [found] if is_message(found) else found
    if found is None or found == [] or found == "":
        raise UnusableRow(f"empty {name}")
    if not isinstance(found, list):
        raise UnusableRow(f"{name} are no list of messages")
    messages: list[Message] = []
    for item in found:
        for message in _read(parsed(item), name, changes):
            if message.pop(CALLING, False) and messages and messages[-1]["role"] == "assistant":
                _join_calls(messages[-1], message, changes)
            else:
                messages.append(message)
    return messages


def _join_calls(before: Message, message: Message, changes: list[str]) -> None:
    """Put a call that has a turn of its own into the assistant's turn before it, where the model makes it."""
    if before.get("learn", True) != message.get("learn", True):
        raise UnusableRow("a call and the text before it are not learned alike")
    thoughts = {turn["reasoning_content"] for turn in (before, message) if "reasoning_content" in turn}
    if len(thoughts) > 1:
        raise UnusableRow("two different reasonings of one turn")
    before["tool_calls"] = [*before.get("tool_calls", ()), *message["tool_calls"]]
    if thoughts:
        (before["reasoning_content"],) = thoughts
    changes.append("calls joined to the turn before them")


def _read(item: Any, name: str, changes: list[str]) -> list[Message]:
    if not isinstance(item, Mapping):
        raise UnusableRow(f"{name} hold something that is no message")
    speaker, asking, answering = _speaker(item), _key(item, ASKING), _key(item, ANSWERING)
    if speaker is None and asking and answering:
        asked, used = item[asking], [asking, answering, "system"]
        if asking == "instruction" and isinstance(asked, str) and isinstance(item.get("input"), str):
            asked = joined([asked, item["input"]], name)  # what an instruction is about follows it
            used.append("input")
        rest = {key: found for key, found in item.items() if key not in used}
        system = [{"role": "system", "content": item["system"]}] if item.get("system") else []
        pair = [{"role": "user", "content": asked}, {**rest, "role": "assistant", "content": item[answering]}]
        return [message for part in (*system, *pair) for message in _read(part, name, changes)]
    role = role_of(item)
    if role is None:
        given = f"the unknown role '{speaker[:20]}'" if isinstance(speaker, str) else "a message without a role"
        raise UnusableRow(f"{name} hold {given}")
    if str(speaker).strip().casefold() == "developer":
        changes.append("developer turns read as system turns")
    return _Turn(item, role, name, changes).messages()


def _speaker(item: Mapping[str, Any]) -> str | None:
    """Return whom a message names as its speaker: also `author: {role: user}`, and LangChain's `type: human`."""
    author, kind = item.get("author"), item.get("type")
    inner = author.get("role") if isinstance(author, Mapping) else None
    typed = kind if isinstance(kind, str) and _ROLES.get(kind.casefold(), CALLING) != CALLING else None
    found = _first(item, ROLE_KEYS) or inner or typed
    return found if isinstance(found, str) else None


def role_of(item: Mapping[str, Any]) -> str | None:
    """Return the side that a message is of; None for one that is not known."""
    return _ROLES.get((_speaker(item) or "").strip().casefold())


class _Turn:
    """One message of a file on its way to ours: its text, and what stands beside it."""

    def __init__(self, item: Mapping[str, Any], role: str, name: str, changes: list[str]) -> None:
        self.item, self.role, self.name, self.changes = item, role, name, changes
        self.content, self.reasoning = "", ""
        self.calls: list[dict[str, Any]] = []
        self.results: list[Message] = []  # of tools, as parts of a user's turn

    def messages(self) -> list[Message]:
        key = _key(self.item, TEXT_KEYS)
        value = self.item[key] if key else None
        if self.role == CALLING:
            self.calls = read_calls(value)
            if not self.calls:
                raise UnusableRow("a tool call without the name of a function")
        else:
            self._take(value)
        self._take_beside(key)
        message: Message = {"role": "assistant" if self.role == CALLING else self.role, "content": self.content}
        if self.calls:
            message["tool_calls"] = self.calls
        if self.reasoning.strip():
            message["reasoning_content"] = self.reasoning
        if self.role == "tool":
            names = [key for key in ("name", "tool_call_id") if self.item.get(key)]
            message |= {key: encodable(str(self.item[key]), self.name) for key in names}
        if self._learned() is False:
            message["learn"] = False
        if self.role == CALLING:
            message[CALLING] = True
        alone = self.results and not self.content.strip()
        return [*self.results, *([] if alone else [message])]

    def _take(self, value: Any) -> None:
        """Add a text, a part, or a list of parts to the turn."""
        if value is None:
            return
        if isinstance(value, Mapping) and isinstance(value.get("parts"), list):  # as ChatGPT's export has them
            value = value["parts"]
        if isinstance(value, str):
            self.content = encodable(value, self.name)
        elif isinstance(value, list) and all(isinstance(part, str | Mapping) for part in value):
            if self.role == "tool" and not all(_is_part(part) for part in value):
                self.content = _as_json(value, self.changes)
                return
            texts = [text for part in value if (text := self._part(part))]
            self.content = "\n\n".join(texts)
            if len(texts) > 1:
                self.changes.append(PARTS_JOINED)
        elif isinstance(value, Mapping) and _is_part(value) and self.role != "tool":
            self.content = self._part(value)
        elif self.role == "tool":
            self.content = _as_json(value, self.changes)
        else:
            raise UnusableRow(f"{self.name} is no text")

    def _part(self, part: str | Mapping[str, Any]) -> str:
        """Return the text of a part; calls, thoughts and results go where rows have them."""
        if isinstance(part, str):
            return encodable(part, self.name)
        kind = str(part.get("type") or part.get("content_type") or "text").casefold()
        text = _first(part, ("text", "value", "content", "thinking", "reasoning"))
        if kind in ("text", "input_text", "output_text") and isinstance(text, str):
            return encodable(text, self.name)
        if kind in ("thinking", "reasoning") and self.role == "assistant":
            thoughts = [thought for thought in (self.reasoning, encodable(text or "", self.name)) if thought]
            self.reasoning = "\n\n".join(thoughts)
            if len(thoughts) > 1:
                self.changes.append(PARTS_JOINED)
        elif kind in ("tool_use", "tool_call", CALLING) and self.role == "assistant":
            self.calls += read_calls(part.get("value") or part)
        elif kind == "tool_result" and self.role == "user":
            inner = _Turn({"tool_call_id": part.get("tool_use_id"), "content": part.get("content")}, "tool", self.name,
                          self.changes)  # fmt: skip
            self.results += inner.messages()
        else:
            raise UnusableRow(f"a part that is no text ({kind[:20]})")
        return ""

    def _take_beside(self, text_key: str | None) -> None:
        """Read what stands beside the text of a message; what rows have no place for is dropped or counted."""
        talks = self.role in ("assistant", CALLING)
        for key, value in self.item.items():
            if key == text_key or key in ROLE_KEYS or key in WEIGHTS or _is_nothing(value):
                continue
            if key in ("tool_calls", CALLING) and talks:
                self.calls += read_calls(value)
            elif key in REASONING and talks:
                self._think(value)
            elif key in _MEDIA:
                raise UnusableRow(f"a turn with {key}, which is not supported")
            elif key in _PARTLY:
                raise UnusableRow(f"a turn whose {key} cannot be obeyed")
            elif key not in _METADATA:
                self.changes.append(f"'{key[:30]}' of a turn not read")

    def _think(self, value: Any) -> None:
        if not isinstance(value, str):
            raise UnusableRow("reasoning that is no text")
        if self.reasoning.strip() and self.reasoning != value:
            raise UnusableRow("two different reasonings of one turn")
        self.reasoning = encodable(value, self.name)

    def _learned(self) -> bool | None:
        """Return whether a turn is marked to be learned; None where nothing marks it."""
        wishes = set()
        for key, meaning in WEIGHTS.items():
            value = self.item.get(key)
            if _is_nothing(value) and not isinstance(value, bool | int | float):
                continue
            wish = truth(value)
            if wish is None:
                raise UnusableRow(f"a turn's {key} is neither 0 nor 1")
            wishes.add(wish == meaning)
        if len(wishes) > 1:
            raise UnusableRow("marks of a turn that contradict each other")
        if self.role in ("assistant", CALLING):
            return wishes.pop() if wishes else None
        return None


_TRUE, _FALSE = frozenset({"1", "1.0", "true", "yes"}), frozenset({"0", "0.0", "false", "no"})


def truth(value: Any) -> bool | None:
    """Return what 0, 1, true or false says, as a value or as text; None for anything else."""
    text = str(value).strip().casefold()
    return True if text in _TRUE else False if text in _FALSE else None


def _is_nothing(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {} or value is False


def _is_part(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Mapping) and ("type" in value or "text" in value))


def _as_json(value: Any, changes: list[str]) -> str:
    changes.append("results of tools written as JSON")
    return encodable(json.dumps(value, ensure_ascii=False, default=as_written), "results of tools")


def _key(item: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """Return the first of some keys that a message has, one that holds something before one that is null."""
    have = [key for key in names if key in item]
    return next((key for key in have if item[key] is not None), have[0] if have else None)


def _first(item: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((item[key] for key in names if isinstance(item.get(key), str)), None)
