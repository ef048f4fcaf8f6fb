"""Write a resolved run as a frozen plan and read it back, so that a stage runs as planned even if files change since.

Usage: `path = freeze(resolved)`, in the run's folder; `resolved = thaw(path, overrides, repository)`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from common.config.base import Frozen, StageSettings
from common.config.build import COMMAND_LINE
from common.config.folders import find_domain
from common.config.json import read_json
from common.config.kinds import kind_of
from common.config.names import Name, NonEmpty
from common.config.overrides import ALLOW_CODE, RAW, Overrides, flatten, nest, take_consent
from common.config.pipeline import Pipeline, parse_pipeline
from common.config.resolve import Resolved, check_secrets, nodes_of
from common.config.schema import Config, RunSettings
from common.config.sequence import assemble, consents_of
from common.config.stage_sections import check_options
from common.config.validation import validated
from common.data.manifest.revisions import NAME, Revisions
from common.errors import ConfigError, DataError, did_you_mean
from common.store.artifacts import Store, write_json, writing
from common.store.runs import PLAN, run_of

SCHEMA = 1  # of a frozen plan
USUAL = f"runs/<domain>/<profile>/<pipeline or name>/{PLAN}"
MOST_NEAR = 8


class PlanFile(Frozen):
    """The keys of a frozen plan; what is below them is checked as the settings that it is for."""

    version: Literal[1] = Field(alias="schema", description="of this form")
    name: Name | None = Field(None, description="of the run; none: that of its pipeline")
    config: dict[str, Any] = Field(description="all settings that belong to no stage")
    stages: dict[str, Any] = Field(description="settings of each stage")
    origins: dict[NonEmpty, str] = Field(default_factory=dict, description="the layer that set each key")
    pipeline: dict[str, Any] = Field(description="stages and their order, as in a pipeline file")
    domain_folder: NonEmpty | None = Field(None, description="of a domain from elsewhere")
    data_root: NonEmpty | None = Field(None, description="folder where relative paths of a manifest start")
    hub_revisions: dict[NonEmpty, NonEmpty] = Field(default_factory=dict, description="branch of a data set -> commit")
    members: dict[Name, PlanFile] = Field(
        default_factory=dict, description="of a sequence of domains: the plan of each, in their order"
    )
    order: NonEmpty | None = Field(None, description="of a sequence: why its domains come in this order")


def freeze(resolved: Resolved) -> Path:
    """Write the plan that any scheduler can drive: `runs/<domain>/<profile>/<name>/plan.json`."""
    plan, path = frozen(resolved), run_of(resolved).plan
    with contextlib.suppress(OSError, ValueError):  # missing, or not whole: it is written again
        if read_json(path) == plan:
            return path
    with writing(Store(resolved.out).runs):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, plan)
    return path


def frozen(resolved: Resolved) -> dict[str, Any]:
    """Return a run as JSON, with everything that its stages need."""
    local = resolved.config.data == "embedded"
    return {
        "schema": SCHEMA,
        "name": resolved.run_name,
        "config": resolved.config.model_dump(mode="json", exclude={"stages"}),
        "stages": {name: settings.model_dump(mode="json") for name, settings in resolved.config.stages.items()},
        "origins": dict(resolved.origins),
        "pipeline": resolved.pipeline.model_dump(mode="json", by_alias=True),
        # Of a domain from elsewhere; shipped ones are found by name, wherever the package is by then.
        **({} if resolved.shipped else {"domain_folder": str(resolved.domain_folder)}),
        "data_root": str(resolved.data_root) if resolved.data_root else None,
        "hub_revisions": {} if local else Revisions(resolved.out / NAME, resolved.hub_revisions).known(),
        **(
            {"members": {name: frozen(member) for name, member in resolved.members.items()}} if resolved.members else {}
        ),
        **({"order": resolved.order} if resolved.order else {}),
    }


def thaw(path: Path, overrides: Mapping[str, str], repository: Path) -> Resolved:
    """Return the run of a frozen plan. `overrides` may only say where it runs (`run.*`, `out`).

    Raises ConfigError when the file is not a plan, or an override would change the plan.
    """
    if not path.exists():
        raise ConfigError(f"There is no plan {path}. {_plans_near(path)}")
    try:
        raw = read_json(path, advice=f"`just run` writes a plan, as {USUAL}.")
    except DataError as error:
        raise ConfigError(str(error)) from None
    check_secrets(raw, str(path))
    overrides = dict(overrides)
    out = overrides.pop("out", None)
    for key in overrides:
        if not key.startswith("run."):
            raise ConfigError(
                f"{key}: a frozen plan takes run.* and out only.{did_you_mean(key, ['out', 'run.device'])}"
            )
    with _edited():
        plan = validated(PlanFile, raw, path=path)
    if not plan.members:
        return _thawed(plan, path, overrides, repository, out)
    consents = consents_of(overrides.pop(ALLOW_CODE, None), list(plan.members))
    with _edited():
        parts = _checked(plan, path)
    root = out or str(_store_of(path, parts[1], plan.name or parts[1].pipeline))
    members = {
        domain: _thawed(member, path, {**overrides, **consents.get(domain, {})}, repository, root)
        for domain, member in plan.members.items()
    }
    run = assemble(members, plan.order or "")
    with _edited():
        _require_together(run, *parts, path)
    return run


def given_in(path: Path) -> Overrides:
    """Return the overrides with which a frozen plan was made, its profile and pipeline among them.

    Those of a sequence are the same for each of its domains. Raises DataError or ConfigError for a file without a plan.
    """
    raw = read_json(path)
    check_secrets(raw, str(path))
    with _edited():
        plan = validated(PlanFile, raw, path=path)
    part = next(iter(plan.members.values()), plan)
    values = flatten({**part.config, **part.stages})
    given = {"profile": str(part.config["profile"]), "pipeline": str(plan.pipeline["name"])}
    if part.data_root is not None:
        given["data_root"] = part.data_root
    for key, layer in part.origins.items():
        below = {name.removeprefix(key): value for name, value in values.items() if f"{name}.".startswith(f"{key}.")}
        if layer == COMMAND_LINE and not key.startswith("run."):
            for end, value in below.items():
                is_text = key in RAW and isinstance(value, str)
                given[key + end] = value if is_text else json.dumps(value, ensure_ascii=False)
    return given


def _require_together(
    run: Resolved, pipeline: Pipeline, config: Config, stages: Mapping[str, StageSettings], path: Path
) -> None:  # fmt: skip
    """Check that what a plan of several domains says of them all is what it says of each. Raises ConfigError."""
    said, counts = (
        {**settings.model_dump(mode="json", exclude={"stages", "run"}), "pipeline": line.model_dump(mode="json"),
         "stages": {name: one.model_dump(mode="json") for name, one in parts.items()}}
        for settings, line, parts in ((config, pipeline, stages), (run.config, run.pipeline, run.config.stages))
    )  # fmt: skip
    here, there = flatten(said), flatten(counts)
    for key in dict.fromkeys([*here, *there]):
        if here.get(key) != there.get(key):
            raise ConfigError(
                f"{path}: {key} is {here.get(key)!r}, and {there.get(key)!r} by what `members` says of each domain, "
                "which is what counts."
            )


def _thawed(plan: PlanFile, path: Path, overrides: Mapping[str, str], repository: Path, out: str | None) -> Resolved:
    """Return the run of one domain's plan, or of one of several."""
    with _edited():
        pipeline, config, stages = _checked(plan, path)
    name = plan.name or pipeline.name
    overrides = dict(overrides)
    consent = take_consent(overrides, config.domain)
    given = {**config.run.model_dump(), **nest(overrides).get("run", {})}
    run = validated(RunSettings, given, prefix="run")
    config = config.model_copy(update={"run": run, "stages": stages})
    data_root = Path(plan.data_root) if plan.data_root else None
    root = Path(out).absolute() if out else _store_of(path, config, name)
    folder = find_domain(plan.domain_folder or config.domain, repository)
    if folder.name != config.domain:
        raise ConfigError(f"{path}: its domain is '{config.domain}', but its domain_folder is {folder}. Plan it again.")
    return Resolved(
        config, plan.origins, pipeline, nodes_of(pipeline, config), repository, folder, data_root, root,
        plan.hub_revisions, consent=consent, given_name=name,
    )  # fmt: skip


@contextlib.contextmanager
def _edited() -> Iterator[None]:
    """Say what to do where somebody has edited a plan."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{error} Undo the edit, or plan it again.") from None


def _checked(plan: PlanFile, path: Path) -> tuple[Pipeline, Config, dict[str, StageSettings]]:
    """Return the parts of a plan that somebody may have edited. Raises ConfigError for what is no longer right."""
    pipeline = parse_pipeline(plan.pipeline, f"{path}, pipeline")
    config = validated(Config, {**plan.config, "stages": {}}, path=path, prefix="config")
    if config.pipeline != pipeline.name:
        raise ConfigError(f"{path}: its pipeline is '{pipeline.name}', and its settings are of '{config.pipeline}'.")
    stages = {}
    for node in pipeline.nodes():
        if node.name not in plan.stages:
            raise ConfigError(f"{path}: stages.{node.name} is missing.")
        cls, key = kind_of(node.kind).settings, f"stages.{node.name}"
        stages[node.name] = validated(cls, plan.stages[node.name], path=path, prefix=key)
        check_options(stages[node.name], node, lambda _: str(path))
    return pipeline, config, stages


def _store_of(path: Path, config: Config, name: str) -> Path:
    """Return the store whose `runs/` a plan is in; plans from before runs had names are a folder higher up."""
    folder = path.resolve().parent
    for parts in (("runs", config.domain, config.profile, name), ("runs", config.domain, config.profile)):
        if folder.parts[-len(parts) :] == parts:
            return folder.parents[len(parts) - 1]
    raise ConfigError(f"{path} is outside a store's {Path(USUAL).parent}/; give out=<folder of the store>.")


def _plans_near(path: Path) -> str:
    """Return which plans there are in the folder of a missing one, beside it, and below it."""
    near = [found for place in (path.parent, path.parent.parent) for found in sorted(place.glob(f"*/{PLAN}"))]
    if near:
        return f"There is {', '.join(str(found) for found in near[:MOST_NEAR])}."
    return f"`just run` and `just plan domain=<domain> freeze=true` write one, as {USUAL}."
