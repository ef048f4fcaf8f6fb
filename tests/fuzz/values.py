"""Values and text that break careless readers, and edits that put them into a document.

Usage: `edited = draw(edits_of(document))`, `text = draw(edits_of_text(b"title: x"))`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

HUGE = "a" * 100_000
ESCAPE = "\x1b[31mred\x1b[0m\x1b]0;title\x07"
TEXTS = (
    "", " ", ".", "..", "../../outside", "/etc/passwd", "/dev/zero", "/", "~", "plan.json", "con", "-rf", "--help",
    "a/b",
    "a\\b", "\x00", "\x07", ESCAPE, "\u202egnp.exe", "\ufeff", "\ud800", "a\nb: c", "\r\n", "'", '"', "{",
    "[" * 1000, "*a",
    "&a", "!function evil.mark", "!!python/object/apply:os.mkdir [owned]", "{{ 7 * 7 }}", "${HOME}", "%s%n", "<b>x</b>",
    "[x](javascript:x)", "`id`", "$(id)", "; id", "nan", "inf", "1e400", "-1", "99999-01-01", "2020-13-45", "0x1F",
    "1_000",
    "9" * 5000, HUGE, "true", "null", "no such name", "base", "cpt", "publish", "è" * 300, "😀", "package:", "hub:",
    "x.gguf",
)  # fmt: skip
NUMBERS = (
    float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 5e-324, 2**31, 2**63, 2**70, -(2**70), 10**400, -1, 0,
    1, 0.5, -0.0,
)  # fmt: skip


def nested(depth: int) -> Any:
    """Return lists and mappings inside each other."""
    value: Any = "x"
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


STRUCTURES: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [None], [{}], {"": ""}, {"a": 1}, {1: 2}, {None: None}, {True: False}, ["a", 1,
    None],
    [0] * 2000, nested(30), nested(120), {f"key{number}": number for number in range(500)},
)  # fmt: skip
hostile = st.one_of(
    st.sampled_from(TEXTS), st.sampled_from(NUMBERS), st.sampled_from(STRUCTURES), st.text(max_size=20), st.integers()
)


def like(value: Any) -> st.SearchStrategy[Any]:
    """Return hostile values of the type that a key takes, and seldom of another."""
    if isinstance(value, bool) or value is None:
        return st.one_of(st.sampled_from((True, False, None, 1, 0)), hostile)
    if isinstance(value, int | float):
        return st.one_of(st.sampled_from(NUMBERS), st.integers(-3, 10**9), st.floats(), hostile)
    return st.one_of(st.sampled_from(TEXTS), st.sampled_from(TEXTS), hostile)


# Pieces that are put into the text of a file. Each is bytes, so that it need not be UTF-8.
PIECES = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3", b"\x1b[2J", b"\x07", b"\t", b"\r", b"\n", b"{",
    b"}", b"[", b"]",
    b'"', b"'", b",", b":", b": ", b"- ", b"#", b"%YAML 9.9\n", b"\n---\n", b"\n...\n", b"&a ", b"*a", b"<<: *a\n",
    b"? ", b"| ",
    b"!function evil.mark", b'!!python/object/apply:os.mkdir ["owned"]', b"!!python/name:os.system", b"!!binary x",
    b"!!set {a}",
    b"99999-01-01", b"2020-13-45T99:99:99Z", b"1e400", b".nan", b"-.inf", b"NaN", b"Infinity", b"9" * 5000, b"0o7",
    b"1_0", b"0x",
    b"[" * 100_000, b"{a: " * 5000, b"- " * 20_000, b"a" * 200_000, b'"\\ud800"', b'"\\u0000"', b'"\\u001b[2J"',
    b"<!--", b"${HOME}",
    b"\nb0: &b0 [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"b%d: &b%d [%s]\n" % (n, n, b",".join([b"*b%d" % (n - 1)] * 9)) for n in range(1, 9)),
    b"\nr: &r [*r]\n", b"\nm: &m {m: *m}\n", b"\ntitle: again\ntitle: again\n", b'{"a": 1, "a": 2}', b"\n{}\n",
    b"null", b"1" * 400,
)  # fmt: skip


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where each node of a document is, its root included."""
    found = [place]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*place, key))
    return found


def at(document: Any, place: tuple[Any, ...]) -> Any:
    """Return a node."""
    for key in place:
        document = document[key]
    return document


def replaced(document: Any, place: tuple[Any, ...], change: Callable[[Any, Any], None], value: Any) -> Any:
    """Return a copy in which `change` was made to the parent of a node, or `value` where the node is the root."""
    if not place:
        return copy.deepcopy(value)
    document = copy.deepcopy(document)
    change(at(document, place[:-1]), place[-1])
    return document


@st.composite
def edits_of(draw: st.DrawFn, document: Any, most: int = 3) -> Any:
    """Draw a document with one to a few nodes replaced, removed, renamed, wrapped, or added."""
    for _ in range(draw(st.integers(1, most))):
        known = places(document)
        roots = 1 if draw(st.integers(0, 30)) else 0  # the whole document is replaced seldom
        place = known[draw(st.integers(min(roots, len(known) - 1), len(known) - 1))]
        kind = draw(st.sampled_from(("replace", "replace", "replace", "remove", "rename", "wrap", "add")))
        value = draw(like(at(document, place)))

        def change(parent: Any, key: Any, kind: str = kind, value: Any = value) -> None:
            if kind == "remove":
                del parent[key]
            elif kind == "rename" and isinstance(parent, dict):
                parent[str(value) if isinstance(value, dict | list) else value] = parent.pop(key)
            elif kind == "wrap":
                parent[key] = [parent[key]] if isinstance(value, str) else {"a": parent[key]}
            elif kind == "add" and isinstance(parent[key], dict):
                parent[key][str(value)[:50]] = value
            elif kind == "add" and isinstance(parent[key], list):
                parent[key].append(value)
            else:
                parent[key] = value

        document = replaced(document, place, change, value)
    return document


@st.composite
def edits_of_text(draw: st.DrawFn, text: bytes, most: int = 3) -> bytes:
    """Draw text with pieces put in, bytes changed, and parts cut out, repeated or cut off."""
    for _ in range(draw(st.integers(1, most))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        kind = draw(st.sampled_from(("insert", "insert", "insert", "replace", "cut", "repeat", "end")))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)))
        middle = {"insert": piece + text[start:end], "replace": piece, "cut": b"", "repeat": text[start:end] * 50}
        text = text[:start] if kind == "end" else text[:start] + middle[kind] + text[end:]
    return text
