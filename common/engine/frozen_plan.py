"""Read a frozen plan back, so that a stage runs as planned even if the files have changed since.

Usage: `resolved = thaw(Path("runs/medical/tiny/plan.json"), overrides, repository)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from common.config.base import StageSettings
from common.config.overrides import nest
from common.config.pipeline import Pipeline
from common.config.resolve import Resolved
from common.config.schema import Config, RunSettings
from common.config.validation import describe_error
from common.errors import ConfigError, did_you_mean


def thaw(path: Path, overrides: Mapping[str, str], repository: Path) -> Resolved:
    """Return the run of a frozen plan. `overrides` may only say where it runs (`run.*`, `out`).

    Raises ConfigError when the file is not a plan, or an override would change the plan.
    """
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        pipeline = Pipeline.model_validate(plan["pipeline"])
        kinds = {node.name: node.kind for node in pipeline.nodes()}
        stages = {name: StageSettings.of(kinds[name]).model_validate(s) for name, s in plan["stages"].items()}
        config = Config.model_validate({**plan["config"], "stages": {}})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is not a frozen plan ({type(error).__name__}). `just run` writes one, as "
            "runs/<domain>/<profile>/plan.json."
        ) from None
    overrides = dict(overrides)
    out = overrides.pop("out", None)
    for key in overrides:
        if not key.startswith("run."):
            raise ConfigError(
                f"{key}: a frozen plan takes run.* and out only.{did_you_mean(key, ['out', 'run.device'])}"
            )
    try:
        run = RunSettings.model_validate({**config.run.model_dump(), **nest(overrides).get("run", {})})
    except ValidationError as error:
        item = error.errors()[0]
        raise ConfigError(f"run.{item['loc'][0]}: {describe_error(item, RunSettings.model_fields)}") from None
    config = config.model_copy(update={"run": run, "stages": stages})
    # The plan is in <out>/runs/<domain>/<profile>/plan.json.
    above = path.resolve().parents
    if out is None and (len(above) < 4 or above[2].name != "runs"):
        raise ConfigError(f"{path} is outside a store's runs/<domain>/<profile>/; give out=<folder of the store>.")
    root = Path(out) if out else above[3]
    data_root = Path(plan["data_root"]) if plan.get("data_root") else None
    return Resolved(
        config, plan.get("origins", {}), pipeline, pipeline.nodes(), repository, data_root, root,
        plan.get("hub_revisions", {}),
    )  # fmt: skip
