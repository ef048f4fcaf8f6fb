"""A pipeline file: named stages, what each continues from, which are examined, and what is published.

Usage: `pipeline = load_pipeline(Path("pipelines"), "full")`; `pipeline.nodes()` is the graph in running order.

It knows names and edges alone. What must be made and why is `common.engine.plan`.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from common.config.base import Frozen
from common.config.cleaning import KIND, PREFIX, with_cleaning
from common.config.folders import names_in, pass_over, read_named
from common.config.kinds import kind_of, kinds
from common.config.names import Name, NonEmpty, twins
from common.config.node import Node
from common.config.validation import validated
from common.errors import ConfigError, RecipeError, did_you_mean

SEQUENCES = "sequences"  # folder of the pipelines for several domains


def _known(name: str) -> str:
    """Check the kind of a stage; cleaning, exams, card and publishing come by themselves. Raises ValueError."""
    *most, last = [kind.name for kind in kinds().values() if kind.makes not in ("rows", "report")]
    if name not in (*most, last):
        raise ValueError(f"expected {', '.join(most)} or {last}")
    return name


class StageSpec(Frozen):
    """One stage as a pipeline file names it."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    kind: Annotated[str, AfterValidator(_known)] = Field(description="what the stage does")
    parent: NonEmpty | None = Field(None, alias="from", description="stage that it continues from")
    others: tuple[NonEmpty, ...] = Field(
        (), alias="with", description="further stages that it reads, such as a merge's"
    )
    control: bool = Field(False, description="a control arm: compared on the card, not held to the gate's limits")
    settings: NonEmpty | None = Field(None, description="take the settings of this stage name; none: its own")
    fixed: dict[str, Any] = Field(
        default_factory=dict, description="settings that make the stage what it is, whatever a layer says"
    )
    each: Literal["chain", "apart"] | None = Field(
        None, description="in a sequence of domains, a stage for each of them: `chain` continues from the domain "
        "before, `apart` from what `from` says",
    )  # fmt: skip
    # What `common.config.sequence` makes of `each`, and no pipeline file may say; a frozen plan keeps it.
    domain: SkipJsonSchema[Name | None] = Field(None, description="whose data and settings it has")

    def called(self, name: str) -> str:
        """Return what a run of one domain calls the stage of this name: that of a single domain by its settings."""
        return self.settings or name if self.domain else name


class Pipeline(Frozen):
    """A pipeline file."""

    name: Name = Field(description="the file's name")
    description: NonEmpty = Field(description="what it is for, in a sentence")
    stages: dict[Name, StageSpec] = Field(description="name -> stage, in running order")
    exam: tuple[NonEmpty, ...] = Field(description="stages whose checkpoints sit the exam")
    publish: NonEmpty = Field(description="stage whose checkpoint is published")
    settings: dict[str, Any] = Field(default_factory=dict, description="a layer of settings, as in a profile")
    # What a data manifest with blocks brings, and no pipeline file may say; a frozen plan keeps it.
    cleaned: SkipJsonSchema[tuple[NonEmpty, ...]] = Field((), description="roles whose rows are cleaned before")
    far: SkipJsonSchema[tuple[NonEmpty, ...]] = Field((), description="of these, the roles with sources on the Hub")
    domains: SkipJsonSchema[tuple[Name, ...]] = Field((), description="of a sequence, in their order")

    @property
    def controls(self) -> tuple[str, ...]:
        """The control arms, by stage name."""
        return tuple(name for name, spec in self.stages.items() if spec.control)

    def nodes(self) -> tuple[Node, ...]:
        """Return all stages in running order: cleaning, each checkpoint, its exam, and at the end the card."""
        nodes: list[Node] = []
        for name, spec in self.stages.items():
            inputs = tuple(dict.fromkeys([*([spec.parent] if spec.parent else []), *spec.others]))
            sampled = any(kind_of(self.stages[other].kind).brings_rows for other in spec.others)
            names = {each: self.stages[each].called(each) for each in (name, *inputs)} if spec.domain else {}
            domain, settings = spec.domain or "", spec.settings or name
            nodes.append(Node(name, spec.kind, spec.parent, inputs, settings, sampled, spec.fixed, domain, names))
            if name in self.exam:
                nodes += self._exams(name)
        everything = tuple(node.name for node in nodes)
        nodes.append(Node("card", "card", self.publish, everything, "card"))
        nodes.append(Node("publish", "publish", self.publish, (*self.may_be_published(), "card"), "publish"))
        return tuple(with_cleaning(nodes, self.cleaned))

    def _exams(self, stage: str) -> list[Node]:
        """Return the exams that a stage's checkpoint sits: one, and in a sequence one of each domain."""
        if not self.domains:
            return [Node(f"exam-{stage}", "evaluate", stage, (stage,), "evaluate")]
        stored = self.stages[stage].called(stage)
        exams = {f"exam-{stage}-on-{domain}": domain for domain in self.domains}
        return [
            Node(name, "evaluate", stage, (stage,), "evaluate", domain=domain,
                 names={name: f"exam-{stored}", stage: stored})
            for name, domain in exams.items()
        ]  # fmt: skip

    def may_be_published(self) -> tuple[str, ...]:
        """Return the stage that `publish` names and the ones that it continues from, without the start of the chain."""
        line, name = [self.publish], self.stages[self.publish].parent
        while name is not None and self.stages[name].parent is not None:
            line.append(name)
            name = self.stages[name].parent
        return tuple(stage for stage in self.stages if stage in line)


def load_pipeline(folder: Path, name: str, said_by: str = "") -> Pipeline:
    """Read and check `<folder>/<name>.yaml` for one domain. Raises ConfigError naming the file and the key.

    `said_by` is the layer that chose it, where that is not the command line.
    """
    pipeline = read_pipeline(folder, name, said_by)
    if several := [stage for stage, spec in pipeline.stages.items() if spec.each is not None]:
        raise ConfigError(
            f"{folder / name}.yaml: stages.{several[0]}.each: a pipeline for several domains stands in "
            f"{folder / SEQUENCES}; move the file there, and run it with domains=<name>,<name>."
        )
    return pipeline


def read_pipeline(folder: Path, name: str, said_by: str = "") -> Pipeline:
    """Read and check a pipeline file for one domain or several. Raises ConfigError naming the file and the key."""
    raw = read_named(folder, "pipeline", name, "description, stages, exam, publish", said_by)
    path = folder / f"{name}.yaml"
    if raw.get("name", name) != name:
        raise ConfigError(f"{path}: name: a pipeline is named after its file, {name}; leave the key out.")
    if taken := [key for key in ("cleaned", "far") if key in raw]:
        raise ConfigError(f"{path}: {taken[0]}: unknown key. A data manifest lists the blocks that clean its rows.")
    pipeline = parse_pipeline({**raw, "name": name}, path)
    if pipeline.domains or any(spec.domain for spec in pipeline.stages.values()):
        raise ConfigError(f"{path}: domain: unknown key. The command line names them: domains=<name>,<name>.")
    return pipeline


def load_pipelines(folder: Path) -> dict[str, Pipeline]:
    """Return every pipeline of a folder that can be read; a broken one is named in a warning and left out."""
    found = {}
    for name in names_in(folder):
        path = folder / f"{name}.yaml"
        try:
            found[name] = _known_pipeline(path, _version_of(path))
        except RecipeError as error:
            pass_over(path, str(error))
    return found


@functools.lru_cache(maxsize=1024)  # every layer of every run asks; a file that was changed has another time or size
def _known_pipeline(path: Path, _version: tuple[int, ...]) -> Pipeline:
    return load_pipeline(path.parent, path.stem)


def _version_of(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:  # reading it says what is wrong
        return ()
    return status.st_mtime_ns, status.st_size


def stages_in(folder: Path) -> frozenset[str] | None:
    """Return the stages of all pipelines of a folder; None where one cannot be read, so that they are not known."""
    read = load_pipelines(folder)
    if set(read) != set(names_in(folder)):
        return None
    return frozenset(node.name for pipeline in read.values() for node in pipeline.nodes())


def parse_pipeline(raw: Any, path: str | Path) -> Pipeline:
    """Check a pipeline of a file or of a frozen plan, which `path` names. Raises ConfigError with it and the key."""
    pipeline = validated(Pipeline, raw, path=path)
    _check_edges(pipeline, path)
    return pipeline


def _check_edges(pipeline: Pipeline, path: str | Path) -> None:
    """Every edge leads to a stage above it; only a base starts from nothing."""
    if pair := twins(pipeline.stages):
        raise ConfigError(
            f"{path}: stages.{pair[1]}: only capital letters tell it from the stage '{pair[0]}', and some disks do not "
            "see them; choose another name."
        )
    above: list[str] = []
    for name, spec in pipeline.stages.items():
        if name.casefold() in ("card", "publish", "evaluate", KIND) or name.casefold().startswith(("exam-", PREFIX)):
            raise ConfigError(f"{path}: stages.{name}: this name is taken by the pipeline itself; choose another.")
        starts = kind_of(spec.kind).starts
        if starts != (spec.parent is None):
            need = "starts the chain and has no 'from'" if starts else "needs 'from: <stage>'"
            raise ConfigError(f"{path}: stages.{name}: a stage of kind {spec.kind} {need}.")
        for other in [*([spec.parent] if spec.parent else []), *spec.others]:
            if other not in above:
                raise ConfigError(f"{path}: stages.{name}: '{other}' is no stage above it.{did_you_mean(other, above)}")
        _check_read(name, spec, pipeline, path)
        if spec.parent and kind_of(kind := pipeline.stages[spec.parent].kind).makes != "language model":
            raise ConfigError(
                f"{path}: stages.{name}: 'from: {spec.parent}' is a {kind} stage, which makes no language model; name "
                "it in 'with', and a stage that makes one in 'from'."
            )
        above.append(name)
    for key, names in (("exam", pipeline.exam), ("publish", (pipeline.publish,))):
        for name in names:
            if name not in pipeline.stages:
                raise ConfigError(f"{path}: {key}: '{name}' is no stage.{did_you_mean(name, pipeline.stages)}")
            if kind_of(kind := pipeline.stages[name].kind).makes != "language model":
                raise ConfigError(f"{path}: {key}: '{name}' is a {kind} stage, which makes no language model.")


def _check_read(name: str, spec: StageSpec, pipeline: Pipeline, path: str | Path) -> None:
    """What a stage names in `with` is something that it reads, and sampled answers come from one stage."""
    reads = kind_of(spec.kind).reads
    others = {other: kind_of(pipeline.stages[other].kind) for other in spec.others}
    for other, kind in others.items():
        if kind.makes not in reads:
            can = " and ".join(f"{what}s" for what in reads) or "nothing"
            raise ConfigError(
                f"{path}: stages.{name}: 'with: {other}' is a {kind.name} stage; one of kind {spec.kind} reads {can} "
                "there."
            )
    if sum(kind.brings_rows for kind in others.values()) > 1:
        what = next(kind.name for kind in others.values() if kind.brings_rows)
        raise ConfigError(f"{path}: stages.{name}: two {what} stages in 'with'; the stage reads one. Keep one.")
