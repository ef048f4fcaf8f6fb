"""`requirements.lock`: each package that is installed stands there in its version and with hashes; torch does not."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY

LOCK = REPOSITORY / "requirements.lock"
FREE = {"torch"}  # from the machine, in a range; so is what it alone brings


def locked() -> dict[str, tuple[str, int]]:
    """Return name -> (version, number of hashes) of each package of the lock."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", LOCK.read_text(encoding="utf-8"))
    found: dict[str, tuple[str, int]] = {}
    for entry in entries:
        if match := re.match(r"([A-Za-z0-9._-]+)==([^ ;\n]+)", entry):
            found[canonicalize_name(match[1])] = (match[2], len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)))
    return found


def asked() -> list[Requirement]:
    """Return what pyproject.toml asks for, for work on the code; its extra `dev` names another one."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    found = [Requirement(text) for text in [*project["dependencies"], *extras["dev"]]]
    own = [Requirement(text) for one in found if one.name == project["name"] for e in one.extras for text in extras[e]]
    return [*(one for one in found if one.name != project["name"]), *own]


def needed() -> dict[str, str]:
    """Return name -> installed version of all packages that are needed, of these and of what they need."""
    found: dict[str, str] = {}
    waiting, seen = asked(), set[str]()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in FREE or str(requirement) in seen:
            continue
        seen.add(str(requirement))
        found[name] = metadata.version(name)
        below = [Requirement(text) for text in metadata.requires(name) or ()]
        extras = requirement.extras or {""}
        waiting += [r for r in below if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras)]
    return found


def test_each_installed_dependency_is_locked_with_hashes() -> None:
    lock, installed = locked(), needed()
    assert len(installed) > 100
    assert {name: lock.get(name, ("", 0))[0] for name in installed} == installed
    assert [name for name, (_, hashes) in lock.items() if not hashes] == []


def test_the_pins_of_the_project_agree_with_the_lock() -> None:
    lock = locked()
    pins = [requirement for requirement in asked() if requirement.name not in FREE]
    assert [str(pin) for pin in pins if not pin.specifier.contains(lock[canonicalize_name(pin.name)][0])] == []


def test_what_comes_from_the_machine_is_not_locked() -> None:
    assert not {name for name in locked() if name in FREE or name.startswith(("nvidia-", "cuda-", "triton"))}


def test_the_lock_names_no_index() -> None:
    assert "//" not in LOCK.read_text(encoding="utf-8")
