"""Read a YAML file the way its author meant it: no `yes` turned into true, no key lost to a second one.

Usage: `value = read_yaml(Path("data.yaml"))`.

It reads and reports; what the keys mean is the caller's business. Raises DataError with file and line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from common.errors import DataError
from common.system.files import read_text

MANIFESTS = (".yaml", ".yml", ".json")  # JSON is YAML too
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same loader, ten times as fast where libyaml is


class _Loader(_Parser):  # type: ignore[misc]  # chosen at import
    """PyYAML's safe loader with the booleans and floats of YAML 1.2, refusing a key that is given twice."""


# YAML 1.1 reads `choices: [yes, no]` as booleans and `1e-5` as a string; both surprise.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^(?:[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+0123456789."),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool | None):
            raise yaml.MarkedYAMLError(None, None, "a key is a list or a mapping", key_node.start_mark)
        if key in seen:
            raise yaml.MarkedYAMLError(None, None, f"key '{key}' is given twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    mapping: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return mapping


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_yaml(path: Path) -> Any:
    """Return the value of a YAML file. Raises DataError: no such file, not UTF-8, or a syntax error's line."""
    try:
        text = read_text(path, "utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DataError(f"{path}{where}: not valid YAML: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not valid YAML: {error}.") from error


def read_manifest(path: Path) -> Any:
    """Return the value of the manifest that `data=` names. Raises DataError, also for what cannot be one."""
    if path.is_dir() or (path.is_file() and path.suffix.lower() not in MANIFESTS):
        what = "a folder" if path.is_dir() else f"a {path.suffix or 'nameless'} file"
        raise DataError(
            f"data={path} is {what}. Expected a manifest: a .yaml file with title and sources, each with its id, role, "
            "path and licence (docs/your-own-data.md)."
        )
    return read_yaml(path)


def parse_value(text: str) -> Any:
    """Return a command-line value: a YAML number, boolean, list or mapping, or else the text itself."""
    if not text.strip():
        return text
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        return text
