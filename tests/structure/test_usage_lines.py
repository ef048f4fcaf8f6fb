"""The code in the `Usage:` lines of module docstrings: it parses, and every name that it uses exists.

Nothing is imported: names are read from the syntax trees, so that the test needs no torch and takes a second.
"""

from __future__ import annotations

import ast
import builtins
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from common.cli.catalogue import COMMANDS
from common.config.overrides import parse
from tests.conftest import REPOSITORY

COMMON = REPOSITORY / "common"
MODULES = sorted(COMMON.rglob("*.py"))
Names = dict[str, ast.AST]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def defined(path: Path) -> Names:
    """Return the names at a module's top level: functions, classes, values and imports."""
    names: Names = {}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):  # also those inside functions
            names |= {alias.asname or alias.name.split(".")[0]: node for alias in node.names}
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    return names


@cache
def everywhere() -> Names:
    """Return the top-level names of all modules, and what they import."""
    names: Names = {}
    for path in MODULES:
        names = defined(path) | names
    return names


@cache
def imported_modules() -> dict[str, Path]:
    """Return the modules that others import by name, as `from common.models import checkpoint` does."""
    found: dict[str, Path] = {}
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("common"):
                folder = REPOSITORY.joinpath(*str(node.module).split("."))
                found |= {a.name: folder / f"{a.name}.py" for a in node.names if (folder / f"{a.name}.py").is_file()}
    return found


def members(cls: ast.ClassDef) -> set[str] | None:
    """Return the attributes of a class; None where a base of it is not one of ours."""
    found: set[str] = set()
    for base in cls.bases:
        if isinstance(base, ast.Name) and base.id in ("BaseModel", "Protocol"):
            found |= set(dir(BaseModel)) if base.id == "BaseModel" else set()
            continue
        inherited = everywhere().get(base.id) if isinstance(base, ast.Name) else None
        if not isinstance(inherited, ast.ClassDef):
            return None
        above = members(inherited)
        if above is None:
            return None
        found |= above
    for node in ast.walk(cls):
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            found.add(node.attr)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def usage_of(path: Path) -> str:
    """Return the text behind `Usage:` in a module's docstring, up to the next paragraph that is no code."""
    found = re.search(r"Usage:(.*?)(?=\n\n(?! {4})|\Z)", ast.get_docstring(tree_of(path)) or "", re.DOTALL)
    return found.group(1) if found else ""


def snippets(text: str) -> Iterator[str]:
    """Yield what stands between backticks, and each block of indented lines."""
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text))
    block = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    if block:
        yield "\n".join(block)


def parsed(code: str) -> ast.Module | None:
    """Return the tree of a snippet; None where it is a command or YAML. Raises SyntaxError for anything else."""
    code = re.sub(r",\s*\.\.\.\s*([)}])", r"\1", code.replace("…", "..."))  # `f(x=1, ...)`: further arguments
    try:
        return ast.parse(code)
    except SyntaxError:
        try:
            if "(" not in code or isinstance(yaml.safe_load(code), dict):
                return None
        except yaml.YAMLError:
            pass
        raise


def check_command(words: list[str]) -> None:
    recipes = re.findall(r"^(\w[\w-]*)(?: \*\w+)?:", (REPOSITORY / "Justfile").read_text(encoding="utf-8"), re.M)
    assert words[0] in recipes, words[0]
    if words[0] in COMMANDS:
        parse(words, COMMANDS)


def class_called(value: ast.expr, names: Names) -> ast.ClassDef | None:
    """Return the class whose object an expression makes, as `Guard(...)` and `Outlook.of(...)` do."""
    if not isinstance(value, ast.Call):
        return None
    made = value.func.value if isinstance(value.func, ast.Attribute) and value.func.attr == "of" else value.func
    found = names.get(made.id) if isinstance(made, ast.Name) else None
    return found if isinstance(found, ast.ClassDef) else None


def check_attribute(node: ast.Attribute, path: Path, variables: dict[str, ast.ClassDef | None]) -> None:
    """Check `module.name`, `Class.name` and `variable.name` where it is known what the first of them is."""
    if not isinstance(node.value, ast.Name):
        return
    name = node.value.id
    names = {**everywhere(), **defined(path)}
    cls = variables[name] if name in variables else names.get(name)
    if cls is None and name not in variables:
        cls = names.get(name.capitalize())  # `console` is a Console, `corpus` a Corpus
    known = members(cls) if isinstance(cls, ast.ClassDef) else None
    beside = path if name == path.stem else path.parent / f"{name}.py" if path.stem == "__init__" else None
    module = beside if beside and beside.is_file() else imported_modules().get(name)
    if name not in variables and module is not None:
        known = set(defined(module)) | (known or set())
    assert known is None or node.attr in known, f"{name} has no {node.attr}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(COMMON)))
def test_names_in_the_usage_line_exist(path: Path) -> None:
    names = {**everywhere(), **defined(path)}
    variables: dict[str, ast.ClassDef | None] = {}
    for code in snippets(usage_of(path)):
        if code.startswith(("just ", "python -m common ")):
            check_command(shlex.split(code)[1:] if code.startswith("just") else shlex.split(code)[3:])
            continue
        tree = parsed(code)
        if tree is None:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                variables[node.targets[0].id] = class_called(node.value, names)
            elif isinstance(node, ast.withitem) and isinstance(node.optional_vars, ast.Name):
                variables[node.optional_vars.id] = class_called(node.context_expr, names)
            elif isinstance(node, ast.For | ast.comprehension) and isinstance(node.target, ast.Name):
                variables[node.target.id] = None
            elif isinstance(node, ast.Call):  # an argument may be a function that a later snippet calls
                variables |= {arg.id: None for arg in node.args if isinstance(arg, ast.Name) and arg.id not in names}
        if isinstance(tree.body[0], ast.Expr) and isinstance(tree.body[0].value, ast.Attribute):
            continue  # `reward.path`: a key of the settings
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name = node.func.id
                assert name in names or name in variables or hasattr(builtins, name), f"there is no {name}"
            elif isinstance(node, ast.Attribute):
                check_attribute(node, path, variables)


def test_it_finds_a_name_that_does_not_exist() -> None:
    path = COMMON / "store" / "artifacts.py"
    for code in ("Store.no_such_name()", "artifacts.no_such_name()"):
        call = ast.parse(code, mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Attribute)
        with pytest.raises(AssertionError, match="has no no_such_name"):
            check_attribute(call.func, path, {})
