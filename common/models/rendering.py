"""Conversations as a chat template writes them: the names of control tokens as text, and nothing left out in silence.

Usage: `ids = encode_chat(tokenizer, messages, tools=tools, prompt=True)`; raises `Refusal` with the reason.

Templates differ in where they take tool calls, tool results and thoughts from, and many have no place for them. Whether
one has is found out by writing the conversation with a sign in each such part. Which tokens are learned is decided in
`common.models.turns`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from common.config.json import every_text
from common.errors import DataError
from common.models.control_tokens import READ_AS_TEXT, ControlTokens, reader_of
from common.models.limits import Refused, apply_template
from common.models.tokenizer import FOLD_SYSTEM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]
Messages = Sequence[Message]
Tools = Sequence[Mapping[str, Any]]

REFUSED = "refused by the chat template"
NO_PLACE = "the chat template has no place for"
CALLS, RESULTS, THOUGHTS = "tool calls", "tool results", "reasoning"
BESIDE, DEFINITIONS = "what is said beside a tool call", "the definitions of tools"
THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")  # of a message, as templates ask for them
FOLDED = "system turn joined to the user's first"
LONGEST_REASON = 100  # characters of what a template says
_SIGN = "\U0010fffc"  # of private use; around the number of a part
_FIRST_NUMBER = 731_000_001  # for parts that are numbers
_OURS = frozenset({"learn"})


class Refusal(DataError):
    """A template does not take a conversation. The text is the reason, as rows are counted by."""


class Form(NamedTuple):
    """How a template wants what templates want in different ways."""

    arguments_as_text: bool = False  # of tool calls: JSON, in place of an object
    thoughts: str = THOUGHT_KEYS[0]
    short_ids: bool = False  # of tool calls: nine letters and digits, as Mistral's templates demand


@dataclass(frozen=True)
class Taken:
    """A conversation in the form that its template takes, its texts marked."""

    tokenizer: PreTrainedTokenizerBase
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    changed: tuple[str, ...]  # what was done with it, as rows are counted by

    def render(self, stop: int | None = None, *, prompt: bool = False) -> str:
        """Return the marked text of the first `stop` messages, with `prompt` up to where the assistant begins.

        Raises Refusal.
        """
        return _render(self.tokenizer, self.messages[:stop], self.tools, prompt)


def take(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Tools | None = None, *,
    asked: Collection[str] = (), learned: Collection[int] | None = None,
) -> Taken:  # fmt: skip
    """Return a conversation as its template takes it. Raises Refusal where it would lose a part of it.

    `asked` are control tokens that the source wants as such. `learned` are the places of the turns whose thoughts must
    be there: templates may leave those of earlier turns out. By default it is the last one.
    """
    reader = reader_of(tokenizer)
    if not _is_plain(messages, tools):
        form = _form_for(tokenizer, messages, tools, [len(messages) - 1] if learned is None else learned)
        messages = [_formed(message, form) for message in messages]
    marked = [_marked(message, reader, asked) for message in messages]
    schemas = [every_text(tool, lambda text: reader.mark(text, asked)) for tool in tools] if tools else None
    bare = [_bare(message) for message in messages]
    named = marked != bare or bool(tools and schemas != list(tools))
    folded = messages[0]["role"] == "system" and str(tokenizer.chat_template).startswith(FOLD_SYSTEM)
    return Taken(tokenizer, marked, schemas, (READ_AS_TEXT,) * named + (FOLDED,) * folded)


def encode_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, *, tools: Tools | None = None, prompt: bool = False
) -> list[int]:
    """Return a conversation as token ids, with `prompt` up to where the assistant begins. Raises Refusal."""
    taken = take(tokenizer, messages, tools)
    (ids,) = reader_of(tokenizer).encode([taken.render(prompt=prompt)])
    return ids


def marked_messages(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> list[dict[str, Any]]:
    """Return messages whose names of control tokens are marked, for a template that somebody else applies."""
    reader = reader_of(tokenizer)
    return [_marked(message, reader, ()) for message in messages]


def _render(tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Tools | None, prompt: bool) -> str:
    options = {"tools": list(tools)} if tools else {}
    try:
        return apply_template(tokenizer, messages, add_generation_prompt=prompt, **options)
    except Refused as error:
        raise Refusal(f"{REFUSED}: {str(error)[:LONGEST_REASON]}") from error


def _is_plain(messages: Messages, tools: Tools | None) -> bool:
    """Whether a conversation has nothing but texts of roles that every template knows."""
    return not tools and not any(
        message["role"] == "tool" or message.get("tool_calls") or message.get("reasoning_content")
        for message in messages
    )


def _form_for(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Tools | None, learned: Collection[int]
) -> Form:
    """Return the first form in which the template writes all of a conversation. Raises Refusal where there is none."""
    calls = any(message.get("tool_calls") for message in messages)
    thoughts = any(message.get("reasoning_content") for message in messages)
    forms = itertools.product(
        (False, True) if calls else (False,),
        (False, True) if calls else (False,),
        THOUGHT_KEYS if thoughts else THOUGHT_KEYS[:1],
    )
    refusals: list[Refusal] = []
    for short_ids, as_text, key in forms:
        form = Form(as_text, key, short_ids)
        try:
            missing = _missing(tokenizer, messages, tools, form, learned)
        except Refusal as refusal:
            refusals.append(refusal)
            continue
        if missing is None:
            return form
        refusals.insert(0, Refusal(f"{NO_PLACE} {missing}"))  # says more than a refusal of another form
    raise refusals[0]


def _missing(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Tools | None, form: Form, learned: Collection[int]
) -> str | None:
    """Return which part of a conversation a template leaves out, or None."""
    signs = _Signs()
    signed = [_signed(message, signs, place) for place, message in enumerate(messages)]
    schemas = [_signed_tool(tool, signs) for tool in tools] if tools else None
    formed = [_bare(_formed(message, form)) for message in signed]
    last = formed[-1]["role"] != "assistant"
    text = _render(tokenizer, formed, schemas, last)
    for what, place, sign in signs.made:
        if what == THOUGHTS and place not in learned:
            continue
        at_the_end = what == THOUGHTS and place < len(messages) - 1
        if not signs.is_in(sign, _render(tokenizer, formed[: place + 1], schemas, False) if at_the_end else text):
            return what
    return None


class _Signs:
    """Signs in the parts of a conversation, by which one sees whether a template has written them."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int, str]] = []  # of which part, in which message, and what is to be found

    def text(self, what: str, place: int, text: str) -> str:
        sign = f"{_SIGN}{len(self.made)}{_SIGN}"
        self.made.append((what, place, sign))
        return sign + text

    def value(self, what: str, place: int, value: Any) -> Any:
        """Return a value with signs in its texts and in place of its numbers."""
        if isinstance(value, str):
            return self.text(what, place, value)
        if isinstance(value, Mapping):
            return {key: self.value(what, place, item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(what, place, item) for item in value]
        if isinstance(value, bool) or value is None:
            return value
        number = _FIRST_NUMBER + len(self.made)
        self.made.append((what, place, str(number)))
        return number

    @staticmethod
    def is_in(sign: str, text: str) -> bool:
        return sign in text or json.dumps(sign)[1:-1] in text


def _signed(message: Message, signs: _Signs, place: int) -> dict[str, Any]:
    signed = dict(message)
    calls, content = message.get("tool_calls"), message.get("content")
    if isinstance(content, str) and content.strip() and (calls or message["role"] == "tool"):
        signed["content"] = signs.text(RESULTS if message["role"] == "tool" else BESIDE, place, content)
    if message.get("reasoning_content"):
        signed["reasoning_content"] = signs.text(THOUGHTS, place, message["reasoning_content"])
    if calls:
        signed["tool_calls"] = [
            {**call, "function": {
                **call["function"], "name": signs.text(CALLS, place, call["function"]["name"]),
                "arguments": signs.value(CALLS, place, call["function"].get("arguments") or {}),
            }}
            for call in calls
        ]  # fmt: skip
    return signed


def _signed_tool(tool: Mapping[str, Any], signs: _Signs) -> dict[str, Any]:
    if isinstance(function := tool.get("function"), Mapping) and "name" in function:
        return {**tool, "function": {**function, "name": signs.text(DEFINITIONS, 0, str(function["name"]))}}
    return {**tool, "name": signs.text(DEFINITIONS, 0, str(tool["name"]))} if "name" in tool else dict(tool)


def _formed(message: Message, form: Form) -> dict[str, Any]:
    """Return a message as a form has it; keys without a value are left out, as templates ask whether they are there."""
    formed = {key: value for key, value in message.items() if value is not None and (value or key != "tool_calls")}
    if "reasoning_content" in formed:
        formed[form.thoughts] = formed.pop("reasoning_content")
    if form.short_ids and "tool_call_id" in formed:
        formed["tool_call_id"] = _short(str(formed["tool_call_id"]))
    if "tool_calls" in formed:
        formed["tool_calls"] = [_formed_call(call, form) for call in formed["tool_calls"]]
    return formed


def _formed_call(call: Mapping[str, Any], form: Form) -> dict[str, Any]:
    arguments = call["function"].get("arguments") or {}
    if form.arguments_as_text and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    formed = {**call, "function": {**call["function"], "arguments": arguments}}
    if form.short_ids:
        formed["id"] = _short(str(call.get("id", "")))
    return formed


def _short(name: str) -> str:
    """Return nine letters and digits that stand for the id of a call."""
    return name if len(name) == 9 and name.isalnum() else hashlib.sha256(name.encode()).hexdigest()[:9]


def _bare(message: Message) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key not in _OURS}


def _marked(message: Message, reader: ControlTokens, asked: Collection[str]) -> dict[str, Any]:
    """Return a message for the template; the assistant's own tags stay as they are in its turns."""
    allowed = {*asked, *reader.own} if message["role"] == "assistant" else asked
    return {
        key: value if key == "role" else every_text(value, lambda text: reader.mark(text, allowed))
        for key, value in _bare(message).items()
    }
