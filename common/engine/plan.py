"""What a run would do: for each stage whether it is there, and if not, why.

Usage: `plan = make_plan(resolved)`; `for step in plan.steps: print(step.state, step.reasons)`.

A stage's fingerprint needs the digests of its inputs, so a stage behind a missing one waits. It is reused if its inputs
turn out identical (early cut-off). Planning imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from common.config.base import Precision
from common.config.kinds import kind_of
from common.config.overrides import flatten
from common.config.pipeline import Node
from common.config.precision import AUTO
from common.config.resolve import Resolved
from common.config.schema import Config
from common.config.stages import PreferenceSettings, PublishSettings, TrainingSettings
from common.cost.outlook import Outlook
from common.data.corpus import Corpus
from common.engine.code import code_of
from common.engine.fingerprint import recipe_of, settings_made_with
from common.engine.preflight.settings import check_settings
from common.engine.provenance import versions
from common.models.facts import check_taken_facts
from common.models.licence import RollUp
from common.report.licences import base_record, planned_licence, require_known
from common.store.artifacts import Artifact, Store, fingerprint_of, was_begun_by
from common.training.loop.progress import reached

State = Literal["cached", "missing", "stale", "waits"]
ABSENT = "(absent)"
START_SECONDS = 6.0  # loading libraries, rendering, saving and checking a training stage


@dataclass(frozen=True)
class Step:
    """One stage of a plan."""

    node: Node
    state: State
    reasons: tuple[str, ...]  # why it is not there, or what else is worth knowing
    fingerprint: str | None  # none while it waits for an input
    artifact: Artifact | None
    tokens: int | None
    seconds: float | None  # none where neither an earlier run nor a known speed gives an estimate


@dataclass(frozen=True)
class Plan:
    """All stages of a run, in running order."""

    resolved: Resolved
    corpus: Corpus
    steps: tuple[Step, ...]
    outlook: Outlook  # what each of them will need
    licence: RollUp  # of what will be published

    @property
    def to_do(self) -> list[Step]:
        return [step for step in self.steps if step.state != "cached"]


def open_corpus(resolved: Resolved) -> Corpus:
    """Return the corpus that the configuration names: embedded, the domain's Hub manifest, or a file's."""
    from common.data.knowledge.corpus import GENERAL_KNOWLEDGE, EmbeddedCorpus

    config = resolved.config
    folder = resolved.domain_folder
    if config.data == "embedded":
        embedded = EmbeddedCorpus(folder / "knowledge.yaml", GENERAL_KNOWLEDGE, config.embedded, config.seed)
        embedded.check()
        return embedded
    from common.data.manifest.manifest import load_manifest
    from common.data.manifest.revisions import NAME, Revisions

    path = folder / "data.yaml" if config.data == "hub" else Path(config.data)
    kinds = [kind_of(node.kind) for node in resolved.nodes if not node.sampled]
    taken = config.model.path is not None  # then the first stage reads no rows
    reading = [kind for kind in kinds if kind.makes != "report" and not (taken and kind.starts)]
    essential = {kind.roles[0] for kind in reading if kind.roles}
    noted = resolved.out / NAME
    revisions = Revisions(noted, fresh=True) if config.run.newest_data else Revisions(noted, resolved.hub_revisions)
    return load_manifest(path, resolved.data_root, essential=sorted(essential), revisions=revisions)


def make_plan(resolved: Resolved, corpus: Corpus | None = None, forced: frozenset[str] = frozenset()) -> Plan:
    """Return the plan of a run. `forced` stages count as missing even if they are there."""
    check_settings(resolved)
    outlook = Outlook.of(resolved)
    corpus = corpus or open_corpus(resolved)
    store = Store(resolved.out)
    known: dict[str, Artifact] = {}
    steps = []
    for node in resolved.nodes:
        step = _step(node, resolved, corpus, store, known, outlook, node.name in forced)
        if step.artifact is not None and step.state == "cached":
            known[node.name] = step.artifact
            check_taken_facts(node.kind, step.artifact.path, resolved.config.model)
        steps.append(step)
    record = base_record(artifact.manifest for artifact in known.values())
    licence = planned_licence(resolved, corpus, record)
    publish = resolved.config.stages["publish"]
    if isinstance(publish, PublishSettings) and publish.to.startswith("hub:"):
        require_known(licence, publish.to)
    return Plan(resolved, corpus, tuple(steps), outlook, licence)


def _step(
    node: Node, resolved: Resolved, corpus: Corpus, store: Store, known: Mapping[str, Artifact], outlook: Outlook,
    forced: bool,
) -> Step:  # fmt: skip
    config = resolved.config
    before = store.linked(config.domain, config.profile, node.name)
    tokens, seconds = _estimate(node, config, before, outlook)
    absent = [name for name in node.inputs if name not in known]
    if absent:
        return Step(node, "waits", (f"after {absent[0]}",), None, before, tokens, seconds)
    recipe = recipe_of(node, resolved, corpus, {name: known[name] for name in node.inputs})
    fingerprint = fingerprint_of(recipe)
    found = store.get(node.name, fingerprint)
    if found is not None and (gone := unpublished(found, store)):
        return Step(node, "missing", (gone,), fingerprint, None, tokens, seconds)
    if found is not None and not forced:
        return Step(node, "cached", tuple(_code_changes(found, node, resolved)), fingerprint, found, tokens, seconds)
    if forced:
        return Step(node, "stale", ("asked for again",), fingerprint, found, tokens, seconds)
    problem = store.problem(node.name, fingerprint)
    if problem is not None:
        return Step(node, "missing", (f"damaged: {problem}",), fingerprint, None, tokens, seconds)
    work, code = store.work_folder(node.name, fingerprint), code_of(node.kind, resolved.repository)["digest"]
    stopped, share = _stopped(work, code)
    notes = tuple(filter(None, [stopped, in_other_precision(recipe, node, resolved, store)]))
    seconds = None if seconds is None else seconds * (1 - share)
    if before is None:
        return Step(node, "missing", notes or ("not made yet",), fingerprint, None, tokens, seconds)
    reasons = (*notes, *changes(before.manifest["recipe"], recipe, resolved.origins, node))
    return Step(node, "stale", reasons, fingerprint, before, tokens, seconds)


def _stopped(work: Path, code: str) -> tuple[str, float]:
    """Return how far a stopped stage has come, in words and as a share of its steps; ("", 0) where nothing began."""
    if not work.exists():
        return "", 0.0
    if not was_begun_by(work, code):
        return "was stopped, and its code has changed since: starts over", 0.0
    step, steps = reached(work / "trainer")
    where = f" at step {step:,} of {steps:,}" if steps else ""
    return f"was stopped, will continue{where}", step / steps if steps else 0.0


def in_other_precision(recipe: Mapping[str, Any], node: Node, resolved: Resolved, store: Store) -> str:
    """Say that a stage was made or begun in another precision, as on another kind of CPU, and what goes on with it."""
    now = recipe["settings"].get("precision")
    if now is None:
        return ""
    origin = resolved.origins.get(f"{node.name}.precision", "")
    key = "precision" if origin.startswith(AUTO) else f"{node.name}.precision"
    because = f" ({origin})" if origin else ""
    code = code_of(node.kind, resolved.repository)["digest"]
    for other in get_args(Precision):
        settings = {**recipe["settings"], "precision": other}
        if settings.get("quantization", {}).get("bnb_4bit_compute_dtype") == now:
            settings["quantization"] = {**settings["quantization"], "bnb_4bit_compute_dtype": other}
        fingerprint = fingerprint_of({**recipe, "settings": settings})
        if other != now and store.get(node.name, fingerprint) is not None:
            return f"made before in {other}, and this run trains in {now}{because}; {key}={other} keeps that result"
        work = store.work_folder(node.name, fingerprint)
        if other != now and work.exists() and was_begun_by(work, code):
            return f"stopped before in {other}, and this run trains in {now}{because}; {key}={other} continues with it"
    return ""


def unpublished(artifact: Artifact, store: Store) -> str | None:
    """Return that a published version is gone from the local registry, or None where it is there."""
    metrics = artifact.manifest["metrics"]
    if artifact.manifest["kind"] != "publish" or metrics["to"] != "local" or (store.root / metrics["path"]).is_dir():
        return None
    return f"{metrics['path']} is gone"


def changes(old: Mapping[str, Any], new: Mapping[str, Any], origins: Mapping[str, str], node: Node) -> list[str]:
    """Return one line per key that differs between two recipes: key, old value, new value, and who set it.

    Defaults are compared as if both recipes held them. Between two schemas, a key that one of them lacks says nothing.
    """
    same_form = old.get("schema") == new.get("schema")
    before, after = (flatten({**recipe, "settings": settings_made_with(recipe)}) for recipe in (old, new))
    lines = []
    for key in dict.fromkeys([*before, *after]):
        a, b = before.get(key, ABSENT), after.get(key, ABSENT)
        if a == b or (ABSENT in (a, b) and key != "schema" and not same_form):
            continue
        shown = key.replace("settings.", f"{node.name}.", 1) if key.startswith("settings.") else key
        origin = origins.get(shown)
        lines.append(f"{shown}: {_short(a)} -> {_short(b)}" + (f" ({origin})" if origin else ""))
    return lines


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) >= 40 and " " not in text else text


def _code_changes(artifact: Artifact, node: Node, resolved: Resolved) -> list[str]:
    """Return which libraries and source files have changed since a result was made. It is reused all the same."""
    then, today = artifact.manifest["versions"], versions()
    libraries = [
        f"{name} {then[name]} -> {today[name]}" for name in then if name in today and then[name] != today[name]
    ]
    reports = [f"made with other libraries ({', '.join(libraries)})"] if libraries else []
    made = artifact.manifest["code"]["files"]
    now = code_of(node.kind, resolved.repository)["files"]
    differing = sorted(name for name in {*made, *now} if made.get(name) != now.get(name))
    if not differing:
        return reports
    more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
    return [f"made by older code ({differing[0]}{more} changed); `just rerun … stage={node.name}` remakes it", *reports]


def _estimate(node: Node, config: Config, before: Artifact | None, outlook: Outlook) -> tuple[int | None, float | None]:
    """Return (tokens, seconds): from the budget and the last measured speed, or from what a machine can do.

    The last run on this machine is the best estimate. Without one, the profile's own small model goes by a guess until
    one of its stages has been measured. For a given checkpoint, or another machine, `common.cost` estimates.
    """
    settings, kind = config.stages[node.name], kind_of(node.kind)
    tokens: int | None = None
    if isinstance(settings, TrainingSettings):
        rounds = getattr(settings, "rounds", 1)
        tokens = settings.tokens * rounds if settings.tokens else (before.manifest["tokens"] if before else None)
        if kind.starts and config.model.path is not None:
            tokens = 0
    elif isinstance(settings, PreferenceSettings):
        tokens = before.manifest["tokens"] if before else None
    here = outlook.hardware.here
    if before is not None and here:
        seconds = float(before.manifest["seconds"])
        trained = int(before.manifest["tokens"])
        if tokens and trained:
            speed = cast(float, before.manifest["tokens_per_second"]) or config.run.tokens_per_second
            seconds = max(1.0, seconds + (tokens - trained) / speed)
        return tokens, seconds
    given = config.model.path is not None and kind.holds_model
    if given or not here or outlook.measured(node.name):
        estimated = outlook.seconds(node.name, tokens)
        if estimated is not None or given:
            return tokens, estimated
    if tokens is None:
        return None, kind.seconds
    return tokens, START_SECONDS + tokens / config.run.tokens_per_second
