"""Do what a plan says is missing, stage after stage, in this process or in several that share a stage.

Usage: `summary = execute(resolved, console)`; `run_stage(resolved, "sft", console)` does one stage alone.

Each stage works under its lock in a scratch folder that survives a crash, and is committed whole. A scheduler may
drive the same stages through `python -m common stage <plan.json> <stage>`.
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config.pipeline import Node
from common.config.resolve import Resolved
from common.console import Console
from common.cost.limits import check_fits
from common.data.corpus import Corpus
from common.engine import launch
from common.engine.environment import needs_hub, prepare
from common.engine.fingerprint import code_of, recipe_of, task_folders
from common.engine.plan import make_plan, open_corpus, store_of, unpublished
from common.engine.preflight.inputs import check_inputs
from common.engine.preflight.settings import check_sharding
from common.engine.provenance import provenance
from common.engine.views import freeze, write_summary
from common.errors import DataError, GateError
from common.models.device import release_memory
from common.stage import MODEL_KINDS, StageContext, StageReport, stage_module
from common.store.artifacts import CODE, Artifact, Store, fingerprint_of, is_of_code, writing
from common.store.locks import Holder
from common.training.distributed import ranks
from common.training.distributed.gpu_lock import ON_GPU, lock_gpus
from common.training.loop import memory


@dataclass
class Outcome:
    """What a run did."""

    artifacts: dict[str, Artifact] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    equal: list[str] = field(default_factory=list)  # made again, with the same result


def execute(resolved: Resolved, console: Console, forced: frozenset[str] = frozenset()) -> Outcome:
    """Make what is missing, in order, and link it under `runs/`. Raises the first stage's error; the rest is kept."""
    store = store_of(resolved)
    check_sharding(resolved)
    plan = make_plan(resolved, forced=forced)
    outcome = Outcome()
    check_fits(plan.outlook, [s.node.name for s in plan.to_do], {s.node.name: s.fingerprint for s in plan.steps})
    check_inputs(resolved, plan.corpus, [step.node for step in plan.to_do])
    freeze(resolved, store)
    for step in plan.steps:
        node = step.node
        artifact = _ensure(node, resolved, plan.corpus, store, outcome, console, forced=node.name in forced)
        outcome.artifacts[node.name] = artifact
        if node.kind == "evaluate":
            _gate(node, resolved, outcome, console)
    write_summary(resolved, store, outcome.artifacts["card"])
    return outcome


def run_stage(resolved: Resolved, name: str, console: Console, *, forced: bool = False) -> Artifact:
    """Make one stage of a plan whose inputs are there. Does nothing where it is there already, unless `forced`.

    Raises DataError naming the input that is missing.
    """
    store = store_of(resolved)
    corpus = open_corpus(resolved)
    if ranks.size() > 1:
        prepare(resolved.config.run, asks_hub=needs_hub(resolved.config, corpus, [resolved.config.stages[name]]))
        launch.configure(resolved.repository, resolved.config.run)
        ranks.start(resolved.config.run)
    plan = make_plan(resolved, corpus)
    steps = {step.node.name: step for step in plan.steps}
    outcome = Outcome({n: s.artifact for n, s in steps.items() if s.state == "cached" and s.artifact is not None})
    step = steps[name]
    if (step.state != "cached" or forced) and ranks.is_main_process():
        check_fits(plan.outlook, [name], {name: step.fingerprint})
        check_inputs(resolved, corpus, [step.node])
    for needed in step.node.inputs:
        if needed not in outcome.artifacts:
            raise DataError(f"Stage {name} needs {needed}, which is not made yet; run stage {needed} first.")
    artifact = outcome.artifacts[name] = _ensure(step.node, resolved, corpus, store, outcome, console, forced=forced)
    if step.node.kind == "evaluate":
        _gate(step.node, resolved, outcome, console)
    elif step.node.kind == "card":
        write_summary(resolved, store, artifact)
    return artifact


def _ensure(
    node: Node, resolved: Resolved, corpus: Corpus, store: Store, outcome: Outcome, console: Console, *, forced: bool
) -> Artifact:
    """Return the artifact of a stage: the one that is there, or a new one, made by all processes that share it."""
    if ranks.is_main_process():
        artifact = _first(node, resolved, corpus, store, outcome, console, forced=forced)
        ranks.broadcast((artifact.path, dict(artifact.manifest)))
    else:
        artifact = _help(node, resolved, corpus, store, outcome, console)
    return artifact


def _first(
    node: Node, resolved: Resolved, corpus: Corpus, store: Store, outcome: Outcome, console: Console, *, forced: bool
) -> Artifact:
    """Return the artifact of a stage: the one that is there, or a new one made under its lock."""
    inputs = {name: outcome.artifacts[name] for name in node.inputs}
    recipe = recipe_of(node, resolved.config, corpus, inputs, resolved.repository)
    fingerprint = fingerprint_of(recipe)
    found = store.get(node.name, fingerprint)
    if found is not None and unpublished(found, store):
        found = None
    link = functools.partial(store.link, resolved.config.domain, resolved.config.profile, node.name)
    if found is not None and not forced:
        ranks.barrier(patiently=True)
        ranks.broadcast(False)
        link(found)
        return found
    if launch.needed(node.kind, resolved.config.run):
        launch.launch(resolved, node.name, freeze(resolved, store), console, forced=forced)
        artifact = store.get(node.name, fingerprint)
        assert artifact is not None, f"stage {node.name} ended well and left nothing"
        _note(outcome, node.name, artifact, found, console, forced=forced)
        return artifact

    def waiting(holder: Holder) -> None:
        console.line(f"  {node.name}: {holder.who} is making it; waiting (Ctrl-C to stop). {holder.silence}".rstrip())

    with store.lock(node.name, fingerprint, wait=resolved.config.run.wait, on_wait=waiting):
        ranks.barrier(patiently=True)  # the others wait for as long as the lock is another run's
        found = store.get(node.name, fingerprint)
        if found is not None and not forced and not unpublished(found, store):
            ranks.broadcast(False)
            link(found)
            return found
        if forced:
            shutil.rmtree(store.work_folder(node.name, fingerprint), ignore_errors=True)
        artifact = _make(node, resolved, corpus, store, inputs, recipe, fingerprint, console)
        link(artifact)  # under the lock, so that gc never sees it unreferred
        if not launch.is_launched():
            _note(outcome, node.name, artifact, found, console, forced=forced)
        return artifact


def _note(
    outcome: Outcome, name: str, artifact: Artifact, before: Artifact | None, console: Console, *, forced: bool
) -> None:
    """Remember that a stage was made, and say where that changed nothing."""
    outcome.made.append(name)
    if forced and before is not None and artifact.digest == before.digest:
        outcome.equal.append(name)
        console.line(f"  {name}: the same result as before; what follows from it stays")


def _help(node: Node, resolved: Resolved, corpus: Corpus, store: Store, outcome: Outcome, console: Console) -> Artifact:
    """Do this process's part of a stage that the first process makes, and return what that one commits."""
    inputs = {name: outcome.artifacts[name] for name in node.inputs}
    ranks.barrier(patiently=True)
    if ranks.broadcast(False):
        fingerprint = fingerprint_of(recipe_of(node, resolved.config, corpus, inputs, resolved.repository))
        work = store.work_folder(node.name, fingerprint)
        out = work / "processes" / str(ranks.rank())
        out.mkdir(parents=True, exist_ok=True)
        _run(_context(node, resolved, corpus, store, inputs, out, work, console))
        ranks.barrier()  # until all have left the scratch folder
    return Artifact(*ranks.broadcast((Path(), {})))


def _context(
    node: Node, resolved: Resolved, corpus: Corpus, store: Store, inputs: dict[str, Artifact], out: Path, work: Path,
    console: Console,
) -> StageContext:  # fmt: skip
    return StageContext(
        node.name, node.kind, resolved.config.stages[node.name], resolved.config, inputs, node.parent, corpus,
        out, work, store.models, console, task_folders(resolved.repository, resolved.config.domain),
    )  # fmt: skip


def _make(
    node: Node, resolved: Resolved, corpus: Corpus, store: Store, inputs: dict[str, Artifact],
    recipe: Mapping[str, Any], fingerprint: str, console: Console,
) -> Artifact:  # fmt: skip
    """Run a stage in its scratch folder and commit the result."""
    work = store.work_folder(node.name, fingerprint)
    out = work / "out"
    code = code_of(node.kind, resolved.repository)
    with writing(store.artifacts):
        _discard_stale_scratch(work, code["digest"], console, node.name)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
    started = time.monotonic()
    if node.kind in MODEL_KINDS:
        from common.training.fit import clean_process

        clean_process.start()
    ranks.broadcast(True)
    with writing(work):
        report = _run(_context(node, resolved, corpus, store, inputs, out, work, console))
    ranks.barrier()  # until all have left the scratch folder
    seconds = time.monotonic() - started
    manifest = {
        "stage": node.name,
        "kind": node.kind,
        "fingerprint": fingerprint,
        "recipe": recipe,
        "inputs": {
            name: {"stage": artifact.stage, "fingerprint": artifact.fingerprint, "digest": artifact.digest}
            for name, artifact in inputs.items()
        },
        "parent": node.parent,
        "metrics": report.metrics,
        "tokens": report.tokens,
        "seconds": round(max(seconds, report.train_seconds), 2),  # the latter counts earlier attempts too
        "train_seconds": round(report.train_seconds, 2),
        "tokens_per_second": round(report.tokens / report.train_seconds, 1) if report.train_seconds else 0.0,
        "rows": report.rows,
        "sources": report.sources,
        "processes": ranks.size(),
        "seed": resolved.config.seed,
        "code": code,
        **provenance(resolved.repository),
    }
    artifact = store.commit(node.name, fingerprint, out, manifest)
    shutil.rmtree(work, ignore_errors=True)
    speed = f", {manifest['tokens_per_second']:,.0f} tokens/s" if report.train_seconds else ""
    console.line(f"  {node.name:<14} made in {seconds:5.1f} s{speed}  [{fingerprint[:8]}]")
    return artifact


def _run(context: StageContext) -> StageReport:
    """Run a stage's own code, alone on its GPUs; where memory runs out, say what to change.

    No process begins before all GPUs are held. What the stage took of them is given back before others may hold them.
    """
    busy = lock_gpus(context.config.run, context.stage, context.console) if context.kind in ON_GPU else nullcontext()
    with memory.explained(context), busy:
        ranks.barrier(patiently=True)
        try:
            report: StageReport = stage_module(context.kind).run(context)
        finally:
            release_memory()
    return report


def _discard_stale_scratch(work: Path, digest: str, console: Console, name: str) -> None:
    """Begin anew where the scratch was made by other code: a run must not mix steps of both."""
    if work.exists() and not is_of_code(work, digest):
        if any(work.glob("trainer/checkpoint-*")):
            console.line(f"  {name}: its code changed since it was stopped; it begins anew")
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    (work / CODE).write_text(digest, encoding="utf-8")


def _gate(node: Node, resolved: Resolved, outcome: Outcome, console: Console) -> None:
    """Compare an examined checkpoint with the base and the stage before it; warn or stop as the settings say."""
    settings = resolved.config.gate
    exams = {name: a for name, a in outcome.artifacts.items() if a.manifest["kind"] == "evaluate"}
    base = next(iter(exams.values()))  # the first examined stage that is there
    spec = resolved.pipeline.stages[str(node.parent)]
    told = settings.mode == "warn" and not {node.name, base.stage} & set(outcome.made)  # by the run that made it
    if settings.mode == "off" or spec.control or base.stage == node.name or told:
        return
    from common.evaluation.gate import check_artifacts

    previous = exams.get(f"exam-{spec.parent}")
    for line in check_artifacts(settings, exams[node.name].path, base.path, previous.path if previous else None):
        if settings.mode == "stop":
            raise GateError(f"The gate stops the chain: {line} Set gate.mode=warn to go on.")
        console.line(f"  gate: {line}", always=True)
