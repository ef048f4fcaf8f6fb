"""Find files by name: the pipelines, profiles and domains that are shipped, and a domain's folder from anywhere.

Usage: `folder = find_domain("medical", repository)` or `find_domain("./chemistry", repository)`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from common.config.base import LONGEST_NAME, NAME
from common.config.yaml import read_yaml
from common.errors import ConfigError, did_you_mean

DOMAIN_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


def is_name(text: str) -> bool:
    """Whether a text may be the name of a file or folder here."""
    return len(text) <= LONGEST_NAME and re.fullmatch(NAME, text) is not None


def check_name(key: str, text: str) -> str:
    """Return a name that a user gave. Raises ConfigError for one that is malformed."""
    if not is_name(text):
        raise ConfigError(
            f"{key}={text[:LONGEST_NAME]!r}: expected letters, digits, '.', '_' and '-', a letter or digit first, and "
            f"at most {LONGEST_NAME} of them."
        )
    return text


def name_of_run(given: str | None, pipeline: str, repository: Path) -> str | None:
    """Return the name that a user gave a run. Raises ConfigError for a malformed one, and for another pipeline's."""
    if given is None:
        return None
    if check_name("name", given) != pipeline and given in names_in(repository / "pipelines"):
        raise ConfigError(
            f"name={given}: runs of the pipeline {given} have that name, and this one is of {pipeline}. Choose "
            f"another, such as my-{given}, or leave name out."
        )
    return given


def names_in(folder: Path, suffix: str = ".yaml") -> list[str]:
    """Return the names that a folder offers: its files without their suffix, or its sub-folders."""
    if suffix:
        return sorted(path.stem for path in folder.glob(f"*{suffix}"))
    return sorted(path.name for path in folder.glob("*") if path.is_dir() and not path.name.startswith((".", "_")))


def read_named(folder: Path, what: str, name: str, expected: str) -> dict[str, Any]:
    """Return the keys of `<name>.yaml`. Raises ConfigError with the nearest name if there is none."""
    if name not in names_in(folder):
        raise ConfigError(f"There is no {what} '{name}'.{did_you_mean(name, names_in(folder))}")
    values = read_yaml(folder / f"{name}.yaml")
    if not isinstance(values, dict):
        raise ConfigError(f"{folder / name}.yaml holds no keys; expected {expected}.")
    return values


def is_path(domain: str) -> bool:
    """Whether `domain=` names a folder from anywhere rather than a shipped domain."""
    return "/" in domain or os.sep in domain or domain.startswith((".", "~"))


def find_domain(given: str, repository: Path) -> Path:
    """Return a domain's folder: a shipped one for its name, any other for its path. Its name is the domain's.

    Raises ConfigError where there is none, or its name is malformed or that of a shipped domain.
    """
    shipped = names_in(repository / "domains", "")
    if not is_path(given):
        if given in shipped:
            return repository / "domains" / given
        found = f"There is no domain '{given}'." if given else "No domain is given. Set domain=<name>."
        if given and Path(given, "stages.yaml").is_file():
            raise ConfigError(f"{found} For the folder of that name here, use domain=./{given}.")
        raise ConfigError(found + did_you_mean(given, shipped))
    folder = Path(os.path.abspath(Path(given).expanduser()))
    if folder.name in shipped and folder.resolve() == (repository / "domains" / folder.name).resolve():
        return repository / "domains" / folder.name
    if not folder.is_dir():
        raise ConfigError(f"domain={given}: there is no such folder. `just new-domain name=<name>` makes one.")
    if not DOMAIN_NAME.fullmatch(folder.name):
        raise ConfigError(
            f"domain={given}: a domain is named after its folder; expected small letters, digits and hyphens, got "
            f"'{folder.name}'. Rename the folder."
        )
    if folder.name in (*shipped, "all"):
        raise ConfigError(
            f"domain={given}: the name '{folder.name}' is taken by "
            f"{'a shipped domain' if folder.name in shipped else 'domain=all'}. Rename the folder, such as "
            f"my-{folder.name}."
        )
    return folder
