"""Write a resolved run as a frozen plan and read it back, so that a stage runs as planned even if files change since.

Usage: `path = freeze(resolved)`, in the run's folder; `resolved = thaw(path, overrides, repository)`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config.folders import check_name, find_domain
from common.config.json import read_json
from common.config.kinds import kind_of
from common.config.overrides import nest, take_consent
from common.config.pipeline import Pipeline
from common.config.resolve import Resolved
from common.config.schema import Config, RunSettings
from common.config.validation import validated
from common.data.manifest.revisions import NAME, Revisions
from common.errors import ConfigError, did_you_mean
from common.store.artifacts import Store, write_json, writing
from common.store.runs import PLAN, run_of

SCHEMA = 1  # of a frozen plan
USUAL = f"runs/<domain>/<profile>/<pipeline or name>/{PLAN}"
MOST_NEAR = 8


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
    }


def thaw(path: Path, overrides: Mapping[str, str], repository: Path) -> Resolved:
    """Return the run of a frozen plan. `overrides` may only say where it runs (`run.*`, `out`).

    Raises ConfigError when the file is not a plan, or an override would change the plan.
    """
    if not path.exists():
        raise ConfigError(f"There is no plan {path}. {_plans_near(path)}")
    try:
        plan = read_json(path)
        if plan["schema"] != SCHEMA:
            raise ValueError(f"schema {plan['schema']}, expected {SCHEMA}")
        pipeline = Pipeline.model_validate(plan["pipeline"])
        classes = {node.name: kind_of(node.kind).settings for node in pipeline.nodes()}
        stages = {name: cls.model_validate(plan["stages"][name]) for name, cls in classes.items()}
        config = Config.model_validate({**plan["config"], "stages": {}})
        data_root = Path(plan["data_root"]) if plan.get("data_root") else None
        name = check_name("name", plan.get("name", pipeline.name))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is not a frozen plan ({type(error).__name__}). `just run` writes one, as {USUAL}."
        ) from None
    overrides = dict(overrides)
    out = overrides.pop("out", None)
    code_allowed = take_consent(overrides, config.domain)
    for key in overrides:
        if not key.startswith("run."):
            raise ConfigError(
                f"{key}: a frozen plan takes run.* and out only.{did_you_mean(key, ['out', 'run.device'])}"
            )
    given = {**config.run.model_dump(), **nest(overrides).get("run", {})}
    run = validated(RunSettings, given, prefix="run")
    config = config.model_copy(update={"run": run, "stages": stages})
    root = Path(out).absolute() if out else _store_of(path, config, name)
    elsewhere = plan.get("domain_folder")
    folder = find_domain(elsewhere or config.domain, repository)
    if folder.name != config.domain:
        raise ConfigError(f"{path}: its domain is '{config.domain}', but its domain_folder is {folder}. Plan it again.")
    return Resolved(
        config, plan.get("origins", {}), pipeline, pipeline.nodes(), repository, folder, data_root, root,
        plan.get("hub_revisions", {}), code_allowed=code_allowed, given_name=name,
    )  # fmt: skip


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
