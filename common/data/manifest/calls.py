"""Read tool calls, and the tools that a conversation may call, however a file writes them.

Usage: `calls = read_calls(message["tool_calls"])`; `tools = read_tools(record["tools"])`; `parsed('[{"role": …}]')`.

Both come out in OpenAI's shape, the arguments of a call as an object. It says nothing of turns.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from common.data.manifest.values import UnusableRow, as_written, encodable

# Characters of Python's notation that are read; its parser takes far more memory than JSON's.
LONGEST_LITERAL = 1_000_000


def parsed(value: Any) -> Any:
    """Return what a string holds in JSON, or in Python's notation as pandas writes it; other values as they are.

    What JSON has no word for, such as a set, stays the text that it was.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    if len(value) > LONGEST_LITERAL:
        return value
    try:
        found = ast.literal_eval(value)
        json.dumps(found)
    except (TypeError, ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    return found


def read_calls(value: Any) -> list[dict[str, Any]]:
    """Return the calls of a turn: OpenAI's, bare `{name, arguments}`, one or several, or all that as JSON."""
    found = parsed(value)
    items = found if isinstance(found, list) else [found]
    return [_call(parsed(item)) for item in items]


def _call(item: Any) -> dict[str, Any]:
    function = item.get("function", item) if isinstance(item, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"].strip():
        raise UnusableRow("a tool call without the name of a function")
    given: Any = next(
        (function[key] for key in ("arguments", "parameters", "input") if function.get(key) is not None), {}
    )
    arguments = parsed(given) if given != "" else {}
    if not isinstance(arguments, Mapping):
        raise UnusableRow("arguments of a tool call that are no JSON object")
    _check_characters(function["name"], arguments)
    name = {"id": str(item["id"])} if item.get("id") else {}
    return {**name, "type": "function", "function": {"name": function["name"], "arguments": dict(arguments)}}


def read_tools(value: Any) -> list[dict[str, Any]]:
    """Return the tools as OpenAI's function schemas; empty where there are none. Raises UnusableRow for others."""
    found = parsed(value)
    if found is None or (isinstance(found, str) and found.strip().lower() in ("", "none", "null")):
        return []
    return [_tool(parsed(item)) for item in (found if isinstance(found, list) else [found])]


def _tool(item: Any) -> dict[str, Any]:
    function = item.get("function", item) if isinstance(item, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UnusableRow("tools that are no function schemas")
    schema = {key: found for key, found in function.items() if key != "input_schema" and found is not None}
    if isinstance(function.get("input_schema"), Mapping):  # as Anthropic writes it
        schema["parameters"] = function["input_schema"]
    _check_characters(schema)
    return {"type": "function", "function": schema}


def _check_characters(*values: Any) -> None:
    """Raise UnusableRow for characters that cannot be encoded anywhere inside."""
    encodable(json.dumps(values, ensure_ascii=False, default=as_written), "a tool call")
