"""Do what a plan says is missing, stage after stage, in this process or in several that share a stage.

Usage: `outcome = execute(resolved, console)`; `run_stage(resolved, "sft", console)` does one stage alone.

Each stage works under its lock in a scratch folder that survives a crash, and is committed whole. A scheduler may
drive the same stages through `python -m common stage <plan.json> <stage>`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from common.config.cleaning import KIND as CLEANING
from common.config.cleaning import PREFIX, cleaned_roles
from common.config.continued import behind_of
from common.config.json import read_json
from common.config.kinds import kind_of
from common.config.node import Node
from common.config.resolve import Resolved
from common.console import Console
from common.cost.limits import check_fits
from common.data.cleaned import Cleaned
from common.data.scorers import scorers_of
from common.engine import launch
from common.engine.claim import claimed
from common.engine.code import code_of
from common.engine.corpora import data_folder, open_corpus, with_corpora
from common.engine.environment import hub_restored, needs_hub, prepare
from common.engine.fingerprint import recipe_of, task_folders
from common.engine.frozen_plan import freeze
from common.engine.gate import broken_limits
from common.engine.job import Job, manifest_of, reads_in, shared_by
from common.engine.methods import carriers
from common.engine.plan import Plan, make_plan
from common.engine.preflight.backends import emulated
from common.engine.preflight.benchmarks import NONE, Benchmarks, note_benchmarks, noted_benchmarks
from common.engine.preflight.domain_code import exam_folders, rewards_file
from common.engine.preflight.inputs import check_inputs, check_plan
from common.engine.preflight.settings import check_sharding
from common.engine.preflight.trial import try_rows
from common.engine.repair import require_inputs, require_unchanged, tell_damage
from common.engine.staleness import in_other_precision, unpublished, went_without
from common.models.boundary import explain_panics
from common.models.device import release_memory
from common.report.licences import licence_notes
from common.stage import StageContext, StageReport, holds_apart
from common.store.artifacts import Artifact, Store, fingerprint_of, write_json, writing
from common.store.cache import remember
from common.store.leases import Lease
from common.store.locks import Holder
from common.store.manifest import read_mapping
from common.store.runs import run_of
from common.store.verify import seen_changed
from common.system.signals import stop_if_asked
from common.training.distributed import ranks
from common.training.distributed.gpu_lock import lock_gpus
from common.training.loop import memory

RESULT_ID = 12  # digits of a fingerprint that trackers show


@dataclass
class Outcome:
    """What a run did."""

    artifacts: dict[str, Artifact] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    equal: list[str] = field(default_factory=list)  # made again, with the same result


@hub_restored()
def execute(resolved: Resolved, console: Console, forced: frozenset[str] = frozenset()) -> Outcome:
    """Make what is missing, in order, and link it under `runs/`. Raises the first stage's error; the rest is kept."""
    check_sharding(resolved)
    plan = make_plan(resolved, forced=forced)
    check_fits(plan.outlook, [s.node.name for s in plan.to_do], {s.node.name: s.fingerprint for s in plan.steps})
    benchmarks = check_plan(plan)
    tried = try_rows(plan, console, benchmarks)
    for line in [*plan.check(), *tried] if plan.to_do else ():
        console.line(f"  {line}", always=True)
    _warn_of_emulation(plan, [step.node.name for step in plan.to_do], console)
    tell_damage(plan, console)
    for note in licence_notes(plan.licence) if plan.to_do else ():
        console.line(f"  licences: {note}", always=True)
    with claimed(plan, console) as lease:
        run = Run(plan, console, Outcome(), lease, benchmarks)
        freeze(resolved)
        for step in plan.steps:
            stop_if_asked()
            run.make(step.node, forced=step.node.name in forced)
            run.hold_to_limits(step.node)
        run.write_summary()
    return run.outcome


@hub_restored()
def run_stage(resolved: Resolved, name: str, console: Console, *, forced: bool = False) -> Artifact:
    """Make one stage of a plan whose inputs are there. Does nothing where it is there already, unless `forced`.

    Raises DataError naming the input that is missing.
    """
    resolved = with_corpora(resolved)
    if ranks.size() > 1:
        corpus = open_corpus(resolved.member(next(node for node in resolved.nodes if node.name == name)))
        prepare(resolved.config.run, asks_hub=needs_hub(resolved.config, corpus, [resolved.config.stages[name]]))
        launch.configure(resolved.repository, resolved.config.run)
        ranks.start(resolved.config.run)
    plan = make_plan(resolved)
    cached = {s.node.name: s.artifact for s in plan.steps if s.state == "cached" and s.artifact is not None}
    benchmarks = NONE
    step = next(step for step in plan.steps if step.node.name == name)
    part = plan.part(step.node)
    if (step.state != "cached" or forced) and ranks.is_main_process():
        check_fits(plan.outlook, [name], {name: step.fingerprint})
        asked_again = forced and not launch.is_launched()
        noted = holds_apart(step.node, resolved.config) and not asked_again  # an exam loads what it asks in any case
        before = noted_benchmarks(part.resolved) if noted else None
        benchmarks = check_inputs(part.resolved, part.corpus, [step.node], benchmarks=before)
        if before is None:
            note_benchmarks(benchmarks, part.resolved, [step.node])
        _warn_of_emulation(plan, [name], console)
    require_inputs(plan, step.node)
    with claimed(plan, console) as lease:
        run = Run(plan, console, Outcome(cached), lease, {step.node.domain: ranks.broadcast(benchmarks)})
        artifact = run.make(step.node, forced=forced)
        run.hold_to_limits(step.node)
        if step.node.kind == "card":
            run.write_summary()
    return artifact


def _warn_of_emulation(plan: Plan, stages: Sequence[str], console: Console) -> None:
    """Say what it costs that stages train in bfloat16 on a device that has none; once, not in each process."""
    if not launch.is_launched() and (warning := emulated(plan.resolved.config, stages)):
        console.line(f"  {warning}", always=True)


class Run:
    """One run: its plan, where results go, and what it has made so far."""

    def __init__(
        self, plan: Plan, console: Console, outcome: Outcome, lease: Lease, benchmarks: Mapping[str, Benchmarks]
    ) -> None:
        """`benchmarks`, by domain, are kept out of the rows; exams go without those that could not be loaded."""
        self.plan, self.resolved, self.config = plan, plan.resolved, plan.resolved.config
        self.outlook = plan.outlook
        self.store = Store(plan.resolved.out)
        self.folder = run_of(plan.resolved)
        self.console = console
        self.outcome = outcome
        self.lease = lease
        self.benchmarks = benchmarks
        if left_out := dict.fromkeys(name for found in benchmarks.values() for name in found.left_out):
            console.line(
                f"  benchmarks left out: {', '.join(left_out)}; their data sets could not be loaded, and "
                "nobody asked for them by name. Your own exam is asked; the card says what is missing.", always=True,
            )  # fmt: skip

    def make(self, node: Node, *, forced: bool) -> Artifact:
        """Return the result of a stage: the one that is there, or a new one, made by all processes that share it.

        The main process looks, locks and commits; the others wait for it and do their part of the stage.
        """
        inputs = {name: self.outcome.artifacts[name] for name in node.inputs}
        part = self.plan.part(node)
        recipe = recipe_of(node, part.resolved, part.corpus, inputs)
        job = Job(node, inputs, recipe, fingerprint_of(recipe), forced)
        with writing(self.store.artifacts):
            self.lease.add(
                self.store.folder(node.stored, job.fingerprint).name
            )  # before anyone looks whether it is there
        artifact: Artifact | None = None
        with contextlib.ExitStack() as lock:
            if ranks.is_main_process():
                artifact = self._find(job) or self._launch(job) or self._lock(job, lock)
                if artifact is None:
                    require_unchanged(inputs, self.folder)
                    self._open_scratch(job)
            ranks.barrier(patiently=True)  # the others wait for as long as the lock is another run's
            if ranks.broadcast(artifact is None):
                started, context = time.monotonic(), self._context(job)
                with writing(context.work, sum(self.outlook.disk(node.name))), ready(context):
                    report: StageReport = kind_of(node.kind).run(context)
                ranks.barrier()  # until all have left the scratch folder
                if ranks.is_main_process():
                    artifact = self._commit(job, report, time.monotonic() - started)
            if artifact is not None:
                self.folder.link(node.name, artifact)
        artifact = ranks.broadcast(artifact)
        assert artifact is not None, f"stage {node.name} ended well and left nothing"
        self.outcome.artifacts[node.name] = artifact
        return artifact

    def _find(self, job: Job) -> Artifact | None:
        """Return the result that is there and whole, unless it is to be made again or its published version is gone."""
        again = job.forced or job.node.name in self.plan.stateless
        found = None if again else self.store.get(job.node.stored, job.fingerprint)
        if found is None or went_without(found, self.resolved.member(job.node)):
            return None
        return None if unpublished(found, self.store) or seen_changed(found) else found

    def _launch(self, job: Job) -> Artifact | None:
        """Let processes of their own make the stage, and return what they committed; None where none are needed."""
        name = job.node.name
        if not launch.needed(job.node.kind, self.config.run):
            return None
        before = self.store.get(job.node.stored, job.fingerprint)
        launch.launch(self.resolved, name, freeze(self.resolved), self.console, forced=job.forced)
        artifact = self.store.get(job.node.stored, job.fingerprint)
        assert artifact is not None, f"stage {name} ended well and left nothing"
        self._note(job, artifact, before)
        return artifact

    def _lock(self, job: Job, lock: contextlib.ExitStack) -> Artifact | None:
        """Hold the lock of a result until `lock` closes. Returns the result if another run has made it meanwhile."""
        name, console = job.node.name, self.console

        def waiting(holder: Holder) -> None:
            console.line(f"  {name}: {holder.who} is making it; waiting (Ctrl-C to stop). {holder.silence}".rstrip())

        lock.enter_context(
            self.store.lock(job.node.stored, job.fingerprint, wait=self.config.run.wait, on_wait=waiting)
        )
        return self._find(job)

    def _open_scratch(self, job: Job) -> None:
        """Open the scratch folder that a crash survives, with an empty folder for the result."""
        name, stored = job.node.name, job.node.stored
        if note := in_other_precision(job.recipe, job.node, self.resolved, self.store):
            self.console.line(f"  {name}: {note}", always=True)
        with writing(self.store.artifacts):
            if job.forced:
                shutil.rmtree(self.store.work_folder(stored, job.fingerprint), ignore_errors=True)
            code = code_of(job.node.kind, self.resolved.repository, self.resolved.config.stages[name])["digest"]
            work, aside = self.store.begin(stored, job.fingerprint, code)
            if aside is not None:
                self.console.line(
                    f"  {name}: its code has changed since it was stopped, so it starts over. The old scratch is in "
                    f"{aside} until the stage is done and gc removes it."
                )
            shutil.rmtree(work / "out", ignore_errors=True)
            (work / "out").mkdir()
        if kind_of(job.node.kind).makes_model:
            from common.training.fit import clean_process

            clean_process.start()

    def _context(self, job: Job) -> StageContext:
        """Return what this process's part of a stage reads and writes. Only the main process writes the result.

        A stage of one domain of a sequence sees the names that a run of that domain alone has, as its result is the
        same. All others see those of this run.
        """
        node, work = job.node, self.store.work_folder(job.node.stored, job.fingerprint)
        part = self.plan.part(node)
        resolved, config = part.resolved, part.resolved.config
        benchmarks = self.benchmarks.get(node.domain, NONE)
        out = work / "out"
        if not ranks.is_main_process():
            out = work / "processes" / str(ranks.rank())
            out.mkdir(parents=True, exist_ok=True)
        settings, folders = config.stages[node.name], task_folders(resolved)
        if getattr(settings, "tasks", ()):
            folders = exam_folders(folders, resolved)
        cleaned = {role: job.inputs[PREFIX + role].path for role in cleaned_roles(node.inputs)}
        corpus = Cleaned(part.corpus, cleaned) if cleaned and node.kind != CLEANING else part.corpus
        inputs = {
            node.called(name): artifact if node.names else artifact.named(name) for name, artifact in job.inputs.items()
        }
        return StageContext(
            node.stored, node.kind, settings, config, inputs, node.called_parent, corpus,
            out, work, self.store.models, self.console, folders, rewards_file(resolved, settings),
            scorers_of(resolved, settings), data_folder(resolved), self.resolved.pipeline.controls,
            benchmarks.left_out, benchmarks.passages if holds_apart(node, config) else (),
            self.folder.label, job.fingerprint[:RESULT_ID], shared_by(resolved, self.lease, work, self.console),
            carriers(node.name, self.resolved), job.fingerprint, self.resolved.nodes,
            behind_of(node, self.resolved.nodes, self.config.stages),
        )  # fmt: skip

    def _commit(self, job: Job, report: StageReport, seconds: float) -> Artifact:
        """Commit the result of a stage with everything that is known of it, and remove the scratch."""
        node, work = job.node, self.store.work_folder(job.node.stored, job.fingerprint)
        before = self.store.get(node.stored, job.fingerprint)
        resolved = self.plan.part(node).resolved
        manifest = manifest_of(job, report, seconds, resolved, work / "out") | reads_in(work)
        if "benchmarks" in job.recipe:
            manifest["benchmarks"] = self.benchmarks.get(node.domain, NONE).facts(resolved)
        artifact = self.store.commit(node.stored, job.fingerprint, work / "out", manifest)
        remember({artifact.path / name: facts["sha256"] for name, facts in artifact.manifest["files"].items()})
        shutil.rmtree(work, ignore_errors=True)
        precision = getattr(self.config.stages[node.name], "precision", "")
        speed = manifest["tokens_per_second"]
        shown = f", {speed:,.0f} tokens/s in {precision}" if report.train_seconds else ""
        self.console.line(f"  {node.name:<14} made in {seconds:5.1f} s{shown}  [{job.fingerprint[:8]}]")
        if not launch.is_launched():
            self._note(job, artifact, before)
        return artifact

    def _note(self, job: Job, artifact: Artifact, before: Artifact | None) -> None:
        """Remember that a stage was made, and say where that changed nothing."""
        name = job.node.name
        self.outcome.made.append(name)
        if job.forced and before is not None and artifact.digest == before.digest:
            self.outcome.equal.append(name)
            self.console.line(f"  {name}: the same result as before; what follows from it stays")

    def write_summary(self) -> None:
        """Put the card's summary where other tools read it, never older than the plan that led to it."""
        target, plan = self.folder.summary, self.folder.plan
        summary = read_json(self.outcome.artifacts["card"].path / "summary.json", strict=False)
        if read_mapping(target) != summary or (plan.is_file() and plan.stat().st_mtime_ns > target.stat().st_mtime_ns):
            with writing(self.store.runs):
                write_json(target, summary)
                planned = plan.stat().st_mtime_ns if plan.is_file() else 0
                if planned > target.stat().st_mtime_ns:  # the clock was set back since
                    os.utime(target, ns=(planned, planned))

    def hold_to_limits(self, node: Node) -> None:
        """Compare an examined stage with the base; warn or stop as the settings say."""
        for line in broken_limits(node, self.plan, self.outcome.artifacts, self.outcome.made):
            self.console.line(f"  gate: {line}", always=True)


@contextlib.contextmanager
def ready(context: StageContext) -> Iterator[None]:
    """Hold a stage's GPUs while it runs. Where memory runs out, say what to change.

    No process begins before all GPUs are held. What the stage took of them is released before others may hold them.
    """
    gpus: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if kind_of(context.kind).on_gpu:
        gpus = lock_gpus(context.config.run, context.stage, context.console)
    with memory.explain_errors(context), explain_panics(f"Stage {context.stage}"), gpus:
        ranks.barrier(patiently=True)
        try:
            yield
        finally:
            release_memory()
