"""What in a domain's folder is code, and a folder to run it from: of domains that are not part of the package.

Usage: `read_code(folder).code`; `folder = runnable(folder, EXAMS)`, right before rewards or exam files are loaded.

Every file counts as code but the domain's own settings, files of data, and exam files that only list tasks by name.
What an exam file names beyond its folder could not be consented to and is refused. Who may run what is
`common.engine.preflight.domain_code`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from common.config.files import DOMAIN_FILES
from common.config.yaml import parse_yaml
from common.errors import ConfigError, first_line
from common.system.outside_code import files_below, private_folder, read_files, require

REWARDS = "rewards.py"
SCORERS = "blocks.py"  # functions that score rows, for blocks that clean data
EXAMS = "eval/"  # folder of a domain with task files of lm-evaluation-harness
TASK_FILES = (".yaml", ".yml")
SETTINGS = frozenset({*DOMAIN_FILES, "README.md", ".gitignore"})
DATA = frozenset({
    ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".md", ".pdf", ".gz", ".bz2", ".xz",
    ".zst", ".yaml", ".yml", ".png", ".svg", ".jpg",
})  # fmt: skip
# An exam file with only these keys lists names of tasks. All others of the harness may hold code: functions, templates
# (its Jinja is not sandboxed), files to include, metrics from the Hub.
GROUP_KEYS = frozenset({"group", "group_alias", "task", "metadata"})
FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")  # of a module beside the file, or installed


@dataclass(frozen=True)
class DomainCode:
    """A domain's folder as it would run."""

    code: dict[str, bytes]  # name -> bytes of what consent is for
    lists: dict[str, bytes]  # exam files that only list names
    data: dict[str, Path]  # what is not code


def read_code(folder: Path) -> DomainCode:
    """Read what in a domain's folder is code. Raises ConfigError for an exam file that names what is outside."""
    found = dict(files_below(folder))
    is_code = {name for name in found if name not in SETTINGS and (_is_exam(name) or _suffix(name) not in DATA)}
    files = read_files(((name, path) for name, path in found.items() if name in is_code), str(folder))
    lists = {name: data for name, data in files.items() if _is_exam(name) and _lists_names(folder / name, data)}
    code = {name: data for name, data in files.items() if name not in lists}
    # What other exams include may have any name.
    exams = {name: _parse(folder / name, data) for name, data in code.items()
             if name.startswith(EXAMS) and _suffix(name) != ".py"}  # fmt: skip
    known = {*lists, *(name for name, value in exams.items() if isinstance(value, dict))}
    for name, value in exams.items():
        _check_exam(folder, name, value, known)
    data = {name: path for name, path in found.items() if name not in files and path.is_file()}
    return DomainCode(code, lists, data)


def runnable(folder: Path, part: str) -> Path:
    """Return a private copy of a domain's folder, for its `part`: REWARDS, SCORERS or EXAMS.

    It holds the folder's code where the part has any. Raises ConfigError where this process may not run it.
    """
    read = read_code(folder)
    code = read.code if any(name.startswith(part) for name in read.code) else {}
    require(code, str(folder))
    return private_folder(folder.name, {**code, **read.lists}, read.data)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _is_exam(name: str) -> bool:
    return name.startswith(EXAMS) and _suffix(name) in TASK_FILES


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the harness's own choice
    """Reads an exam file as data; `!function` becomes the name of the function."""


class Function(str):
    """What `!function` names."""


_Loader.add_constructor("!function", lambda loader, node: Function(str(loader.construct_scalar(node))))


def _parse(path: Path, data: bytes) -> Any:
    """Return what an exam file says, as the harness would read it; None for a file of another kind.

    Raises ConfigError where it cannot be read within the bounds of `common.config.yaml`, whose reader has no functions.
    """
    try:
        text = data.decode("utf-8-sig")
        parse_yaml(text, any_tag=True)
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        if path.suffix.lower() not in TASK_FILES:
            return None
        why = getattr(error, "problem", None) or first_line(error)
        raise ConfigError(f"{path}: what it would run cannot be read: {why}. Write it as plain YAML.") from error


def _lists_names(path: Path, data: bytes) -> bool:
    """Whether an exam file is a group of tasks by name, and so holds no code."""
    value = _parse(path, data)
    tasks = value.get("task", []) if isinstance(value, dict) and value.keys() <= GROUP_KEYS else None
    return isinstance(tasks, list) and all(type(name) is str for name in tasks)


def _check_exam(folder: Path, name: str, exam: Any, known: Collection[str]) -> None:
    """Refuse what an exam file would run or read that is not among the files that are consented to."""
    path = folder / name
    for key, value in _pairs(exam):
        if isinstance(value, Function) and not FUNCTION.fullmatch(value):
            raise ConfigError(
                f"{path}: !function {value} leads out of the folder; expected <module>.<function>, of a file beside it."
            )
        if key == "include" and isinstance(value, str) and _inside(name, value) not in known:
            raise ConfigError(
                f"{path}: include: {value} is no file of {folder / EXAMS} that can be consented to. Copy it there, as "
                "a .yaml file."
            )
        if key == "hf_evaluate" and value:
            raise ConfigError(
                f"{path}: hf_evaluate fetches a metric's code from the Hub and runs it, which nobody could consent to. "
                "Use a metric of lm-evaluation-harness, or `metric: !function <module>.<function>`."
            )


def _inside(name: str, target: str) -> str | None:
    """Return the name of a file that another one names, relative to itself; None where it leads out of the folder."""
    parts: list[str] = []
    for part in (PurePosixPath(name).parent / target).parts:
        if part == ".." and not parts:
            return None
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield each key of nested values with each text, number or item of a list that it holds."""
    left = [("", value)]
    while left:
        key, found = left.pop()
        if isinstance(found, dict | list):
            left += found.items() if isinstance(found, dict) else [(key, item) for item in found]
        else:
            yield key, found
