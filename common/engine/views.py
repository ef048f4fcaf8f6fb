"""What other tools read of a run under `runs/<domain>/<profile>/`: the plan for schedulers, the summary of the card.

Usage: `path = freeze(resolved, store)`; `write_summary(resolved, store, card)`. Links to results are `Store.link`.
"""

from __future__ import annotations

import json
from pathlib import Path

from common.config.resolve import Resolved
from common.data.manifest.revisions import NAME, Revisions
from common.store.artifacts import Artifact, Store, write_json, writing


def freeze(resolved: Resolved, store: Store) -> Path:
    """Write the plan that any scheduler can drive: `runs/<domain>/<profile>/plan.json`."""
    view = store.view(resolved.config.domain, resolved.config.profile)
    path = view / "plan.json"
    local = resolved.config.data == "embedded"
    plan = {
        "schema": 1,
        "config": resolved.config.model_dump(mode="json", exclude={"stages"}),
        "stages": {name: settings.model_dump(mode="json") for name, settings in resolved.config.stages.items()},
        "origins": dict(resolved.origins),
        "pipeline": resolved.pipeline.model_dump(mode="json", by_alias=True),
        # Of a domain from elsewhere; shipped ones are found by name, wherever the package is by then.
        **({} if resolved.shipped else {"domain_folder": str(resolved.domain_folder)}),
        "data_root": str(resolved.data_root) if resolved.data_root else None,
        "hub_revisions": {} if local else Revisions(resolved.out / NAME, resolved.hub_revisions).known(),
    }
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) == plan:
        return path
    with writing(store.runs):
        view.mkdir(parents=True, exist_ok=True)
        write_json(path, plan)
    return path


def write_summary(resolved: Resolved, store: Store, card: Artifact) -> None:
    """Put the card's summary where other tools read it, never older than the plan that led to it."""
    target = store.view(resolved.config.domain, resolved.config.profile) / "summary.json"
    text = (card.path / "summary.json").read_text(encoding="utf-8")
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        with writing(store.runs):
            write_json(target, json.loads(text))
    plan = target.with_name("plan.json")
    if plan.is_file() and plan.stat().st_mtime_ns > target.stat().st_mtime_ns:
        with writing(store.runs):
            target.touch()
