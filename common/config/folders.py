"""Find files by name: the pipelines, profiles and domains that are shipped, and a domain's folder from anywhere.

Usage: `folder = find_domain("medical", repository)` or `find_domain("./chemistry", repository)`.
"""

from __future__ import annotations

import functools
import logging
import os
import textwrap
from pathlib import Path
from typing import Any

from common.config.names import LONGEST, check_name, domain_flaw, is_name
from common.config.yaml import read_yaml
from common.errors import ConfigError, did_you_mean

log = logging.getLogger(__name__)
MOST_SHOWN = 300  # letters of what is wrong with a file that is left out


def name_of_run(given: str | None, pipeline: str, repository: Path) -> str | None:
    """Return the name that a user gave a run. Raises ConfigError for a malformed one, and for another pipeline's."""
    if given is None:
        return None
    taken = {name.casefold(): name for name in names_in(repository / "pipelines") if name != pipeline}
    if other := taken.get(check_name("name", given).casefold()):
        raise ConfigError(
            f"name={given}: runs of the pipeline {other} have that name, and this one is of {pipeline}. Choose "
            f"another, such as my-{given}, or leave name out."
        )
    return given


def names_in(folder: Path, suffix: str = ".yaml") -> list[str]:
    """Return the names that a folder offers: its files without their suffix, or its sub-folders.

    What has a malformed name, or cannot be looked at, is none of them.
    """
    found = [path for path in folder.glob(f"*{suffix}") if suffix or os.path.isdir(path)]
    return sorted(name for path in found if is_name(name := path.name.removesuffix(suffix)))


def read_named(folder: Path, what: str, name: str, expected: str, said_by: str = "") -> dict[str, Any]:
    """Return the keys of `<name>.yaml`. Raises ConfigError with the nearest name if there is none.

    `said_by` is the layer that names it, where that is not the command line.
    """
    if not is_name(name) or f"{name}.yaml" not in os.listdir(folder):
        said = f" ({said_by})" if said_by else ""
        raise ConfigError(
            f"There is no {what} {check_name(f'{what}{said}', name)!r}{said}.{did_you_mean(name, names_in(folder))}"
        )
    values = read_yaml(folder / f"{name}.yaml")
    if not isinstance(values, dict):
        raise ConfigError(f"{folder / name}.yaml holds no keys; expected {expected}.")
    return values


@functools.cache
def pass_over(path: Path, problem: str) -> None:
    """Say once that a file is left out, because others do not depend on it."""
    line = " ".join(problem.split())
    log.warning("left out: %s", textwrap.shorten(line if str(path) in line else f"{path}: {line}", MOST_SHOWN))


def is_path(domain: str) -> bool:
    """Whether `domain=` names a folder from anywhere rather than a shipped domain."""
    return "/" in domain or os.sep in domain or domain.startswith((".", "~"))


def find_domain(given: str, repository: Path) -> Path:
    """Return a domain's folder: a shipped one for its name, any other for its path. Its name is the domain's.

    Raises ConfigError where there is none, or its name is malformed or that of a shipped domain.
    """
    shipped = names_in(repository / "domains", "")
    if not is_path(given):
        if given and (problem := domain_flaw(given)):
            raise ConfigError(f"domain={given[:LONGEST]!r}: {problem}.")
        if given in shipped:
            return repository / "domains" / given
        found = f"There is no domain '{given}'." if given else "No domain is given. Set domain=<name>."
        if given and Path(given, "stages.yaml").is_file():
            raise ConfigError(f"{found} For the folder of that name here, use domain=./{given}.")
        raise ConfigError(found + did_you_mean(given, shipped))
    folder = Path(os.path.abspath(os.path.expanduser(given)))
    if not os.path.isdir(folder):
        raise ConfigError(f"domain={given}: there is no such folder. `just new-domain name=<name>` makes one.")
    if problem := domain_flaw(folder.name):
        raise ConfigError(
            f"domain={given}: a domain is named after its folder, '{folder.name}': {problem}. Rename the folder."
        )
    if folder.name in shipped:
        if folder.resolve() == (repository / "domains" / folder.name).resolve():
            return repository / "domains" / folder.name
        raise ConfigError(
            f"domain={given}: the name '{folder.name}' is taken by a shipped domain. Rename the folder, such as "
            f"my-{folder.name}."
        )
    return folder
