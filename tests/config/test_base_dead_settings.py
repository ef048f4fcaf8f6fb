"""No setting of any settings class is without effect: something reads each, told by its name and its class."""

from __future__ import annotations

import ast

import pytest

from common.data.blocks.relevance import AXES
from tests.config.settings_reads import Sources, unread_settings
from tests.conftest import REPOSITORY

# Settings that no attribute access reads, and why they are there.
READ_OTHERWISE = {
    "Config.peft": "a value for all stages, which the layers give to each",
    "Config.precision": "the same",
    "Manifest.settings": "a layer, read before the manifest is checked",
    "Manifest.profiles": "the same",
    "Manifest.blocks": "the same",
    **{f"RelevanceSettings.{axis}": "read by its name, as each of AXES" for axis in AXES},
    "PruneSettings.distillation": "chooses its methods, before it is checked",
    "Knowledge.kind": "chooses the class, before the file is checked",
    "ProblemFile.kind": "as above",
    "Collection.kind": "as above",
    "Pipeline.description": "for those who read the file",
    "PlanFile.version": "compared while the file is checked",
    "Attribute.label": "as above",
    "Knowledge.entity": "as above",
    "SourceKeys.evidence": "as above",
    "SourceKeys.note": "as above",
}
# What a run writes for scripts (common/report/record.py): results, not settings.
RESULTS = {"Result", "CheckpointSummary", "Summary"}
PLANTED = """
class Frozen: ...
class Schedule(Frozen):
    warmup: float
    decay: float
class StageSettings(Frozen):
    kinds: ClassVar[dict] = {}
class CptSettings(StageSettings):
    schedule: Schedule
    tokens: int
    heldout: float
class RewardSettings(StageSettings):
    heldout: float
    dead: int
class Monitor:
    decay: float
    def __init__(self, context: Context): self.settings = cast(CptSettings, context.settings)
    def look(self): return self.settings.schedule.warmup, self.decay
class Context:
    @property
    def settings(self) -> StageSettings: ...
def run(context: Context, other: Monitor):
    settings = context.settings
    if isinstance(settings, RewardSettings):
        print(f"{settings.heldout}")
    return [getattr(item, "tokens") for item in [settings]], other.dead
"""


def test_every_setting_of_every_class_is_read_but_one_planted_here() -> None:
    """The planted one has the name of attributes that other classes have, and that are read in many places."""
    trees = {str(path): ast.parse(path.read_text("utf-8")) for path in sorted((REPOSITORY / "common").rglob("*.py"))}
    answering = next(tree for path, tree in trees.items() if path.endswith("config/answering.py"))
    expert = next(node for node in answering.body if isinstance(node, ast.ClassDef) and node.name == "ExpertSettings")
    expert.body.extend(ast.parse("folder: int = 3").body)
    sources = Sources(trees)
    assert {"CptSettings", "RunSettings", "WatchSettings", "Source", "Template", "StageSpec"} <= {*sources.settings()}
    apart = {*RESULTS, *sources.descendants("FilterSettings")}  # whose `rules` gives all of them to the filter
    unread = {key for key in unread_settings(sources) if key.partition(".")[0] not in apart}
    assert unread == READ_OTHERWISE.keys() | {"ExpertSettings.folder"}


@pytest.mark.parametrize(("read", "unread"), [("", True), ("def f(x: Schedule): return x.decay", False)])
def test_a_planted_setting_that_nothing_reads_is_found(read: str, unread: bool) -> None:
    """Others with the same name are read: `decay` of a class that is no setting, `dead` of one that has none."""
    found = unread_settings(Sources({"planted": ast.parse(PLANTED + read)}))
    assert found == [*(["Schedule.decay"] if unread else []), "RewardSettings.dead"]
