"""What a stage is: a plain function from (settings, input artifacts, data) to one output folder.

Usage: a stage's module in `common/stages/` has `run(context: StageContext) -> StageReport`, and declares its kind
(`common.config.kinds`). Nothing heavy is imported before `run` is called, so that planning stays instant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config.answering import DrawingSettings
from common.config.base import StageSettings
from common.config.cleaning import ROLES, cleaned_roles, from_lineage
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.schema import Config
from common.store.artifacts import Artifact

if TYPE_CHECKING:
    from common.console import Console
    from common.data.corpus import Corpus
    from common.data.exam_passages import Passage
    from common.store.shared import SharedResults


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
    scorers: Mapping[str, Callable[..., float]] = field(default_factory=dict)  # of the domain, where a block names some
    data: Path | None = None  # the data folder: where the paths of a manifest start
    controls: tuple[str, ...] = ()  # the pipeline's control arms, by stage name; the card compares with them
    left_out: tuple[str, ...] = ()  # benchmarks that could not be loaded, and that the exam goes without
    benchmarks: tuple[Passage, ...] = ()  # what the others ask, where the stage holds rows against it
    run: str = ""  # <profile>/<name> of the run; says whose a published version is
    result_id: str = ""  # the head of its fingerprint, by which trackers know it
    shared: SharedResults | None = None  # what several stages read, such as tokens; None keeps it in the scratch
    carried: tuple[str, ...] = ()  # later stages of the run that go on with the state of its optimizer
    fingerprint: str = ""  # of its result
    nodes: tuple[Node, ...] = ()  # all stages of the run; the card says by them which exam is whose
    behind: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # role -> budgets that stages before have read

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
    read: dict[str, int] = field(default_factory=dict)  # shared results that hold its rows -> tokens read of each


def data_roles(
    kind: str, corpus: Corpus, settings: StageSettings, *, sampled: bool = False, cleaned: Collection[str] = ()
) -> list[str]:
    """Return the roles whose rows decide a stage's result, the exam questions that guard them included.

    Roles that were `cleaned` before come as inputs, and not from the corpus. With `sampled` an input of the stage
    brings the rows that it trains on: see `common.training.rows.reader`. So does a model that learns from answers of
    its own: these are held against the exam as they are drawn.
    """
    declared = kind_of(kind)
    drawn = sampled or draws(kind)
    roles = list(declared.measures if settings.measuring else declared.roles)
    guards = corpus.exam_roles(roles[0]) if roles and declared.makes != "report" else ()
    if sampled:
        del roles[0]
    replay = getattr(settings, "replay", None)
    if (replay == 0 or from_lineage(settings)) and "replay" in roles:
        roles.remove("replay")
    elif replay == 1 and "replay" in roles:
        roles = ["replay"]
    left = [role for role in roles if role not in cleaned]
    if roles and not left and not drawn:  # the exam was kept out when they were cleaned
        return []
    return [*left, *(guard for guard in guards if guard not in left)]


def draws(kind: str) -> bool:
    """Whether stages of a kind train on answers that their own model draws."""
    return kind_of(kind).makes_model and issubclass(kind_of(kind).settings, DrawingSettings)


def holds_apart(node: Node, config: Config) -> bool:
    """Whether a stage holds rows against the exam: those that it cleans, that nobody cleaned before, or that it draws.

    So what the benchmarks of the run ask is part of its recipe.
    """
    kind, settings = kind_of(node.kind), config.stages[node.name]
    if kind.makes == "rows":
        return True
    taken = (kind.starts and config.model.path is not None) or getattr(settings, "path", None) is not None
    roles = kind.measures if settings.measuring else kind.roles
    if kind.makes == "report" or taken or not roles:
        return False
    replay = 0 if from_lineage(settings) else getattr(settings, "replay", None)
    read = {role for role in roles if role in ROLES and not (role == "replay" and replay == 0)}
    read = {"replay"} if replay == 1 else read
    return node.sampled or draws(node.kind) or not read <= set(cleaned_roles(node.inputs))
