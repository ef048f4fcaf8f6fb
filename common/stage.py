"""What a stage is: a plain function from (settings, input artifacts, data) to one output folder.

Usage: every module here has `run(context: StageContext) -> StageReport`; `stage_module(kind)` imports the one
for a kind. Nothing heavy is imported before `run` is called, so that planning stays instant.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from common.config.base import StageSettings
from common.config.schema import Config
from common.store.artifacts import Artifact

if TYPE_CHECKING:
    from common.console import Console
    from common.data.corpus import Corpus

KIND_MODULES = {
    "base": "common.stages.base",
    "cpt": "common.stages.cpt",
    "sft": "common.stages.sft",
    "dpo": "common.stages.dpo",
    "orpo": "common.stages.orpo",
    "kto": "common.stages.kto",
    "reward": "common.stages.reward",
    "sample": "common.stages.sample",
    "expert": "common.stages.expert",
    "grpo": "common.stages.grpo",
    "rloo": "common.stages.rloo",
    "merge": "common.stages.merge",
    "evaluate": "common.stages.evaluate",
    "card": "common.stages.card",
    "publish": "common.stages.publish",
}

PREFERENCE_KINDS = ("dpo", "orpo", "kto", "reward")  # stages that learn from pairs of answers
REWARDED_KINDS = ("grpo", "rloo")  # stages that learn from rewards on their own answers
ANSWERING_KINDS = (*REWARDED_KINDS, "expert", "sample")  # stages that let a checkpoint answer prompts

# Corpus roles that a kind trains or examines on; what the exam guard reads is added by `data_roles`.
KIND_ROLES: dict[str, tuple[str, ...]] = {
    "base": ("pretrain",),
    "cpt": ("cpt", "replay"),
    "sft": ("sft", "replay"),
    **dict.fromkeys(PREFERENCE_KINDS, ("preference", "preference_heldout")),
    **dict.fromkeys(ANSWERING_KINDS, ("prompts",)),
    "expert": ("prompts", "replay"),
    "evaluate": ("questions_domain", "questions_general", "text_domain", "text_general"),
}
TRAINING_KINDS = ("base", "cpt", "sft", *PREFERENCE_KINDS, *REWARDED_KINDS, "expert")
SEEDED_KINDS = (*TRAINING_KINDS, "merge", "sample")
MODEL_KINDS = (*TRAINING_KINDS, "merge")
SHARED_KINDS = ("base", "cpt", "sft", "dpo", "orpo", "kto", "reward", "grpo", "rloo")  # that processes may share


@dataclass(frozen=True)
class StageContext:
    """Everything that a stage may read, and the two folders that it may write."""

    stage: str  # name in the pipeline, such as `sft-only`
    kind: str  # such as `sft`
    settings: StageSettings
    config: Config  # the whole run; a stage reads only `seed`, `model`, `run`, `domain`, `profile`, `pipeline`
    inputs: dict[str, Artifact]  # by stage name, in pipeline order
    parent: str | None  # the input that this stage continues from
    corpus: Corpus
    out: Path  # the result; becomes the artifact when the stage returns
    work: Path  # scratch that survives a crash: trainer checkpoints, tokenised rows
    models: Path  # the local registry, `models/`
    console: Console
    task_folders: tuple[Path, ...] = ()  # with harness task files of our own
    rewards_file: Path = Path("rewards.py")  # of the domain; read where its rewards are named

    @property
    def parent_artifact(self) -> Artifact:
        assert self.parent is not None, f"stage {self.stage} has no parent"
        return self.inputs[self.parent]


@dataclass
class StageReport:
    """What a stage says of itself; it goes into the artifact's manifest."""

    metrics: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0  # trained on, or scored
    train_seconds: float = 0.0  # inside the trainer's loop; 0 where there is none
    rows: list[dict[str, Any]] = field(default_factory=list)  # accounting per source: see `common.data.accounting`
    sources: list[dict[str, Any]] = field(default_factory=list)  # id, role, licence, revision or digest


def stage_module(kind: str) -> ModuleType:
    """Import the module of a stage kind. Raises KeyError for a kind that does not exist."""
    return importlib.import_module(KIND_MODULES[kind])


def data_roles(kind: str, corpus: Corpus, settings: StageSettings, *, sampled: bool = False) -> list[str]:
    """Return the roles whose rows decide a stage's result, the exam questions that guard them included.

    With `sampled` an input of the stage brings the rows that it trains on: see `common.training.rows.reader`.
    """
    roles = list(KIND_ROLES.get(kind, ()))
    guards = corpus.exam_roles(roles[0]) if kind in (*TRAINING_KINDS, "sample") else ()
    if sampled:
        del roles[0]
    replay = getattr(settings, "replay", None)
    if replay == 0 and "replay" in roles:
        roles.remove("replay")
    elif replay == 1 and "replay" in roles:
        roles = ["replay"]
    return [*roles, *(guard for guard in guards if guard not in roles)]
