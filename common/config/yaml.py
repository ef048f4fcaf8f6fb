"""Read a YAML file the way its author meant it, within bounds: no `yes` turned into true, no key lost to a second one.

Usage: `value = read_yaml(Path("data.yaml"))`.

It reads and reports; what the keys mean is the caller's business. Raises DataError with file and line. A file that
anyone may have written costs seconds at most: its size, depth, aliases and numbers are bounded before it is built.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from common.config.json import LARGEST_INT
from common.errors import LONGEST_QUOTE, DataError, cut, quoted
from common.system.files import MIB, read_text_file

MANIFESTS = (".yaml", ".yml", ".json")  # JSON is YAML too
LARGEST = 16 * MIB
DEEPEST = 100  # lists and mappings inside each other; where libyaml builds values, some ten thousand end the process
MOST_REPEATED = 100_000  # values that aliases may add to a file
MOST_SOURCES = 10_000  # of a manifest; each is opened and looked into before a run
LONG = 64  # characters of a text that count as one more value
LONGEST_NUMBER = 400  # characters; the longest float has 310 digits
FRONT_MATTER = re.compile(r"\s*---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where libyaml is
_CORE = "tag:yaml.org,2002:"
_PLAIN = frozenset({"null", "bool", "int", "float"})
_KEYS = (str, int, float, bool, type(None))
_MAKER = yaml.constructor.SafeConstructor()
_MERGE = object()  # the key `<<`, whose mapping gives the keys that are not written out
# YAML 1.1 reads `choices: [yes, no]` as booleans and `1e-5` as a string; both surprise. So do dates.
_TYPES: dict[str, list[tuple[str, re.Pattern[str]]]] = {
    first: [(tag.removeprefix(_CORE), pattern) for tag, pattern in types if tag.endswith((":null", ":int", ":merge"))]
    for first, types in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _first in "tTfF":
    _TYPES.setdefault(_first, []).append(("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")))
for _first in "-+0123456789.":
    _number = r"^(?:[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    _TYPES.setdefault(_first, []).append(("float", re.compile(_number)))


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not been read."""

    value: list[Any] | dict[Any, Any]
    start: Any  # the event
    before: int  # values that were read before it
    is_foreign: bool  # a tag of another program stands before it
    waits: bool = False  # a mapping: whether `key` waits for its value
    key: Any = None
    merged: set[Any] = field(default_factory=set)  # keys that came by `<<`

    def take(self, value: Any, event: Any) -> None:
        """Add an item, a key, or the value of the last key."""
        if isinstance(self.value, list):
            self.value.append(value)
        elif self.waits:
            self.waits = False
            if self.key is _MERGE:
                self._merge(value if isinstance(value, list) else [value], event)
            else:
                self.value[self.key] = value
        elif value is _MERGE:
            self.key, self.waits = value, True
        elif not isinstance(value, _KEYS):
            raise _problem("a key is a list or a mapping", event)
        elif value in self.value and value not in self.merged:
            raise _problem(f"key {quoted(str(value))} is given twice", event)
        else:
            self.merged.discard(value)
            self.key, self.waits = value, True

    def _merge(self, sources: list[Any], event: Any) -> None:
        """Add the keys of mappings that are not there yet. Of two mappings the first counts."""
        assert isinstance(self.value, dict)
        for source in sources:
            if not isinstance(source, dict):
                raise _problem("<< needs a mapping, or a list of mappings", event)
            new = {key: value for key, value in source.items() if key not in self.value}
            self.merged.update(new)
            self.value.update(new)


def _build(text: str, *, any_tag: bool) -> Any:
    """Return the value of a text, made of the parser's events: they need no recursion, and are counted on the way.

    Raises YAMLError, before a value grows beyond the bounds.
    """
    known: dict[str, tuple[Any, int]] = {}  # anchor -> its value, and how many it holds
    path: list[_Open] = []
    root: Any = None
    event: Any  # of several classes, by what begins or ends there
    count = repeated = documents = 0
    for event in yaml.parse(text, Loader=_Parser):
        anchor = getattr(event, "anchor", None)
        before = count
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _problem("another document begins; write one in a file", event)
            continue
        if isinstance(event, yaml.CollectionStartEvent):
            made: list[Any] | dict[Any, Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
            foreign = _is_foreign(event, {"map" if isinstance(made, dict) else "seq"}, any_tag)
            path.append(_Open(made, event, before, foreign))
            count += 1
            if len(path) > DEEPEST:
                raise _problem(f"more than {DEEPEST} lists and mappings inside each other", event)
            continue
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == outer.start.anchor for outer in path):
                raise _problem(f"the alias {quoted(anchor)} stands inside what it means", event)
            if anchor not in known:
                raise _problem(f"there is no {quoted(anchor)} for this alias to mean", event)
            value, size = known[anchor]
            count, repeated = count + size, repeated + size
            if repeated > MOST_REPEATED:
                raise _problem(f"its aliases repeat more than {MOST_REPEATED:,} values; write fewer of them", event)
        elif isinstance(event, yaml.ScalarEvent):
            value = _scalar(event, any_tag)
            count += 1 + len(event.value) // LONG
        elif isinstance(event, yaml.CollectionEndEvent):
            done = path.pop()
            value = None if done.is_foreign else done.value
            event, anchor, before = done.start, done.start.anchor, done.before
        else:
            continue
        if anchor and not isinstance(event, yaml.AliasEvent):
            known[anchor] = value, count - before
        if value is _MERGE and not (path and isinstance(path[-1].value, dict) and not path[-1].waits):
            value = "<<"
        if path:
            path[-1].take(value, event)
        else:
            root = value
    return root


def _scalar(event: Any, any_tag: bool) -> Any:
    """Return a text, number, boolean or null; a tag such as `!!int` may stand before anything."""
    text = event.value
    if event.tag in (None, "!"):
        types = _TYPES.get(text[:1], ()) if event.implicit[0] and event.tag is None else ()
        name = next((name for name, pattern in types if pattern.match(text)), "str")
        if name == "merge":
            return _MERGE
    elif _is_foreign(event, {"str", *_PLAIN}, any_tag):
        return None
    else:
        name = event.tag.removeprefix(_CORE)
    if name == "str":
        return text
    if len(text) > LONGEST_NUMBER:
        raise _problem(f"a number of {len(text):,} characters; at most {LONGEST_NUMBER} are read", event)
    try:
        value = getattr(_MAKER, f"construct_yaml_{name}")(yaml.ScalarNode(_CORE + name, text))
    except (ValueError, KeyError, IndexError):
        raise _problem(f"{quoted(text)} is no {name}", event) from None
    if name == "int" and abs(value) > LARGEST_INT:
        raise _problem(f"{quoted(text)} is too large a number; put it in quotes if it is a text", event)
    return value


def _is_foreign(event: Any, names: set[str], any_tag: bool) -> bool:
    """Whether a tag of another program stands before a value. Raises YAMLError where none may."""
    tag: str | None = event.tag
    if tag in (None, "!") or (tag.startswith(_CORE) and tag.removeprefix(_CORE) in names):
        return False
    if any_tag and tag.startswith("!"):
        return True
    shown = cut(tag.replace(_CORE, "!!"), LONGEST_QUOTE)
    raise _problem(f"the tag {shown} is not read here; write a plain value", event)


def _problem(message: str, event: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, message, event.start_mark)


def parse_yaml(text: str, *, any_tag: bool = False) -> Any:
    """Return the value of a YAML text, within the same bounds as a file's. Raises YAMLError."""
    return _build(text, any_tag=any_tag)


def read_yaml(path: Path, *, any_tag: bool = False) -> Any:
    """Return the value of a YAML file; with `any_tag` values with the tags of another program are None.

    Raises DataError: no such file, too large, not UTF-8, or a line with what is wrong there.
    """
    text = read_text_file(path, largest=LARGEST)
    try:
        return _build(text, any_tag=any_tag)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DataError(f"{path}{where}: not valid YAML: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not valid YAML: {str(error).splitlines()[0]}.") from error


def read_front_matter(path: Path) -> dict[str, Any]:
    """Return the mapping between `---` lines at the start of a text; an empty one where none can be read."""
    try:
        found = FRONT_MATTER.match(read_text_file(path, largest=LARGEST))
        value = _build(found[1], any_tag=True) if found else None
    except (DataError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


def read_manifest(path: Path) -> Any:
    """Return the value of the manifest that `data=` names. Raises DataError, also for what cannot be one."""
    if path.is_dir() or (path.is_file() and path.suffix.lower() not in MANIFESTS):
        what = "a folder" if path.is_dir() else f"a {path.suffix or 'nameless'} file"
        raise DataError(
            f"data={path} is {what}. Expected a manifest: a .yaml file with title and sources, each with its id, role, "
            "path and licence (docs/your-own-data.md)."
        )
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return read_yaml(path)  # which says what is wrong
    return _manifest_as_it_is(path, (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino))


@functools.lru_cache(maxsize=8)
def _manifest_as_it_is(path: Path, stamp: tuple[int, ...]) -> Any:
    """Return a manifest's value, parsed once for all in a process that ask: nobody changes it."""
    value = read_yaml(path)
    listed = value.get("sources") if isinstance(value, dict) else None
    if isinstance(listed, list) and len(listed) > MOST_SOURCES:
        raise DataError(
            f"{path}: {len(listed):,} sources; at most {MOST_SOURCES:,} are read. One source may have many files: "
            "path: texts/*.jsonl."
        )
    return value


def parse_value(text: str) -> Any:
    """Return a command-line value: a YAML number, boolean, list or mapping, or else the text itself."""
    if not text.strip():
        return text
    try:
        return _build(text, any_tag=False)
    except yaml.YAMLError:
        return text
