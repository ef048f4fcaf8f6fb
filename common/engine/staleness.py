"""Why a stage would run again, and what is worth knowing of a result that is there.

Usage: `for line in changes(old_recipe, new_recipe, origins, node): print(line)`.

It reads manifests and recipes and decides nothing: a plan does (`common.engine.plan`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from common.config.base import Precision
from common.config.defaults import filled
from common.config.methods import method_of, methods
from common.config.node import Node
from common.config.overrides import flatten
from common.config.precision import AUTO
from common.config.resolve import Resolved
from common.engine.code import code_of
from common.engine.fingerprint import settings_made_with
from common.engine.own_data import is_default
from common.engine.provenance import versions
from common.stages.evaluate import LEFT_OUT
from common.store.artifacts import Artifact, Store, fingerprint_of, was_started_by
from common.store.runs import run_of
from common.store.verify import changed_since_published
from common.training.loop.progress import reached

ABSENT = "(absent)"
DAMAGED = "damaged: "  # begins the reason of a step whose result is not what was committed


def stopped_at(work: Path, code: str) -> tuple[str, float]:
    """Return how far a stopped stage has come, in words and as a share of its steps; ("", 0) where nothing began."""
    if not work.exists():
        return "", 0.0
    if not was_started_by(work, code):
        return "was stopped, and its code has changed since: starts over", 0.0
    step, steps = reached(work / "trainer")
    where = f" at step {step:,} of {steps:,}" if steps else ""
    return f"was stopped, will continue{where}", step / steps if steps else 0.0


def in_other_precision(recipe: Mapping[str, Any], node: Node, resolved: Resolved, store: Store) -> str:
    """Say that a stage was made or started in another precision, and which setting keeps or continues that."""
    now = recipe["settings"].get("precision")
    if now is None:
        return ""
    origin = resolved.origins.get(f"{node.name}.precision", "")
    key = "precision" if origin.startswith(AUTO) else f"{node.name}.precision"
    because = f" ({origin})" if origin else ""
    code = code_of(node.kind, resolved.repository, resolved.config.stages[node.name])["digest"]
    for other in get_args(Precision):
        settings = {**recipe["settings"], "precision": other}
        if settings.get("quantization", {}).get("bnb_4bit_compute_dtype") == now:
            settings["quantization"] = {**settings["quantization"], "bnb_4bit_compute_dtype": other}
        fingerprint = fingerprint_of({**recipe, "settings": settings})
        if other != now and store.get(node.stored, fingerprint) is not None:
            return f"made before in {other}, and this run trains in {now}{because}; {key}={other} keeps that result"
        work = store.work_folder(node.stored, fingerprint)
        if other != now and work.exists() and was_started_by(work, code):
            return f"stopped before in {other}, and this run trains in {now}{because}; {key}={other} continues with it"
    return ""


def unpublished(artifact: Artifact, store: Store) -> str | None:
    """Return that a published version is gone, or not `latest` though that was asked for; None where all is there."""
    metrics, settings = artifact.manifest["metrics"], artifact.manifest.get("settings", {})
    if artifact.manifest["kind"] != "publish" or metrics["to"] != "local":
        return None
    version = store.root / metrics["path"]
    if not version.is_dir():
        return f"{metrics['path']} is gone"
    latest = version.parent / "latest"
    elsewhere = settings.get("latest") and latest.resolve() != version.resolve()
    return f"{Path(metrics['path']).parent}/latest is another version" if elsewhere else None


def not_as_published(artifact: Artifact, resolved: Resolved) -> list[str]:
    """Return that files of a published version are not what was published, and what to do."""
    problem = changed_since_published(artifact, Store(resolved.out))
    return [] if problem is None else [f"{DAMAGED}{problem}; `{run_of(resolved).rerun('publish')}` publishes it again"]


def changes(old: Mapping[str, Any], new: Mapping[str, Any], origins: Mapping[str, str], node: Node) -> list[str]:
    """Return one line per key that differs between two recipes: key, old value, new value, and who set it.

    Defaults are compared as if both recipes held them. Between two schemas, a key that one of them lacks says nothing.
    """
    same_form = old.get("schema") == new.get("schema")
    own, others = (settings_made_with(recipe) for recipe in (old, new))
    pairs = ((old, own, others), (new, others, own))
    before, after = (flatten({**recipe, "settings": _with_methods(one, other)}) for recipe, one, other in pairs)
    lines = []
    for key in dict.fromkeys([*before, *after]):
        a, b = before.get(key, ABSENT), after.get(key, ABSENT)
        if a == b or (ABSENT in (a, b) and key != "schema" and not same_form):
            continue
        shown = key.replace("settings.", f"{node.name}.", 1) if key.startswith("settings.") else key
        origin = origins.get(shown)
        lines.append(f"{shown}: {_short(a)} -> {_short(b)}" + (f" ({origin})" if origin else ""))
    return lines


def _with_methods(settings: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the defaults of those methods that others have on too; one of them has a key of its own."""
    found = {
        name: filled(given, method_of(name).settings) if name in (others.get("methods") or {}) and name in methods()
        else given
        for name, given in (settings.get("methods") or {}).items()
    }  # fmt: skip
    return {**settings, "methods": found} if found else dict(settings)


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) >= 40 and " " not in text else text


def _missing_benchmarks(artifact: Artifact) -> Sequence[str]:
    """Return the benchmarks that an exam went without, or the check of a stage's rows."""
    kept_out = artifact.manifest.get("benchmarks", {}).get(LEFT_OUT)  # of rows that were held against the others
    return artifact.manifest["metrics"].get(LEFT_OUT) or kept_out or ()


def went_without(artifact: Artifact, resolved: Resolved) -> str | None:
    """Return that a result was made without benchmarks which the run now asks for by name; None where it was not."""
    stages = resolved.config.stages
    asked = {
        task
        for name in stages
        for task in getattr(stages[name], "tasks", ())
        if not is_default(f"{name}.tasks", resolved)
    }
    names = [name for name in _missing_benchmarks(artifact) if name in asked]
    return f"made without {', '.join(names)}, which this run asks for" if names else None


def left_out(artifact: Artifact, node: Node) -> list[str]:
    """Return what a cached result says of benchmarks that it went without."""
    names = _missing_benchmarks(artifact)
    return [f"without {', '.join(names)}; `just rerun … stage={node.name}` asks for them again"] if names else []


def code_changes(artifact: Artifact, node: Node, resolved: Resolved) -> list[str]:
    """Return which libraries and source files have changed since a result was made. It is reused all the same."""
    then, today = artifact.manifest["versions"], versions()
    libraries = [
        f"{name} {then[name]} -> {today[name]}" for name in then if name in today and then[name] != today[name]
    ]
    reports = [f"made with other libraries ({', '.join(libraries)})"] if libraries else []
    made = artifact.manifest["code"]["files"]
    now = code_of(node.kind, resolved.repository, resolved.config.stages[node.name])["files"]
    differing = sorted(name for name in {*made, *now} if made.get(name) != now.get(name))
    if not differing:
        return reports
    more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
    return [f"made by older code ({differing[0]}{more} changed); `just rerun … stage={node.name}` remakes it", *reports]
