"""Read the settings that a domain's file holds, for all profiles and for single ones.

Usage: `file = read_domain_file(find_domain("medical", repository), repository / "pipelines")`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from common.config.base import Frozen
from common.config.folders import names_in
from common.config.kinds import kinds
from common.config.pipeline import stages_in
from common.config.schema import SCALARS, SECTIONS
from common.config.validation import report, validated
from common.config.yaml import read_yaml
from common.errors import ConfigError, DataError, did_you_mean
from common.system.files import NotRegular, kind_of

DOMAIN_FILES = ("knowledge.yaml", "data.yaml", "stages.yaml")


class DomainFile(Frozen):
    """`domains/<domain>/stages.yaml`: settings for all profiles, for those with a real checkpoint, for single ones."""

    all: dict[str, Any] = Field(default_factory=dict, description="for every run of the domain")
    checkpoint: dict[str, Any] = Field(default_factory=dict, description="for runs of model.path on real data")
    profiles: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="for the runs of one profile, by name"
    )


def read_domain_file(folder: Path, pipelines: Path) -> DomainFile:
    """Read stages.yaml. Raises DataError for missing files and ConfigError with every unknown section of it."""
    path = folder / "stages.yaml"
    profiles = names_in(pipelines / "profiles")
    for name in DOMAIN_FILES:
        if (kind := kind_of(folder / name)) and not (folder / name).is_dir():
            raise NotRegular(folder / name, kind)
    missing = [name for name in DOMAIN_FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"The domain folder {folder} lacks {', '.join(missing)}. A domain has {', '.join(DOMAIN_FILES)}; "
            "`just new-domain name=<name>` makes a folder with all of them to copy from."
        )
    raw = read_yaml(path) or {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected the keys {', '.join(DomainFile.model_fields)}, got {type(raw).__name__}.")
    file = validated(DomainFile, raw, path=path)
    problems = [
        f"profiles.{name}: there is no such profile.{did_you_mean(name, profiles)}"
        for name in file.profiles
        if name not in profiles
    ]
    blocks = {"all": file.all, "checkpoint": file.checkpoint, **{f"profiles.{k}": v for k, v in file.profiles.items()}}
    stages = stages_in(pipelines)
    known = {*SECTIONS, *SCALARS, *kinds(), *(stages or ())}
    problems += [
        f"{place}.{key}: no section or stage of that name.{did_you_mean(key, known)}"
        for place, block in blocks.items()
        for key in block
        if key not in known and stages is not None
    ]
    if problems:
        raise ConfigError(report(path, problems))
    return file
