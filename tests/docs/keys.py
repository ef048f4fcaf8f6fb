"""Whether a dotted key is a setting of some run.

Usage: `check_key("cpt.schedule.kind")` raises AssertionError for a key that does not exist.
"""

from __future__ import annotations

from functools import cache

from pydantic import BaseModel

from common.config.kinds import kind_of, kinds
from common.config.overrides import ALLOW_CODE
from common.config.pipeline import load_pipeline
from common.config.schema import SECTIONS, Config
from common.config.trl_mappings import rules_of
from common.config.trl_options import options_of
from tests.conftest import REPOSITORY


@cache
def pipeline_with(stage: str) -> str | None:
    """Return a pipeline that has a stage of this name or kind; None where there is none."""
    folder = REPOSITORY / "pipelines"
    for path in [folder / "demonstration.yaml", *sorted(folder.glob("*.yaml"))]:
        if any(stage in (node.name, node.kind) for node in load_pipeline(folder, path.stem).nodes()):
            return path.stem
    return None


def is_section(name: str) -> bool:
    return name in (*SECTIONS, "train") or pipeline_with(name) is not None


def check_key(key: str) -> None:
    """Check that a dotted key is a setting. Raises AssertionError."""
    if key == ALLOW_CODE:  # consent on a command line, which no file holds
        return
    section, *rest = key.split(".")
    if section == "train":
        assert any(
            rest[0] in options_of(kind.trainer) for kind in (k.settings for k in kinds().values()) if kind.trainer
        ), key
        return
    cls: type[BaseModel]
    if section in SECTIONS:
        annotation = Config.model_fields[section].annotation
        assert isinstance(annotation, type)
        cls = annotation
    else:
        name = pipeline_with(section)
        assert name is not None
        nodes = load_pipeline(REPOSITORY / "pipelines", name).nodes()
        cls = kind_of(next(node.kind for node in nodes if section in (node.name, node.kind))).settings
    for number, part in enumerate(rest):
        assert part in cls.model_fields, f"{key}: there is no {part}"
        annotation = cls.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            if part == "train" and rest[number + 1 :]:
                assert rest[number + 1] in {**rules_of(cls), **options_of(getattr(cls, "trainer", ""))}, key
            return
        cls = annotation
