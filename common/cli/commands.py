"""The commands, one function each: what it takes by name is its own, all other overrides are settings of a run.

Usage: `run(program, {"domain": "medical", "cpt.tokens": "5"})`; `common.cli.catalogue` says what each command takes.

They print; everything they call logs or returns. Nothing heavy is imported before a stage runs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli.chosen_run import resolve_asked, resolve_made, results_of
from common.cli.process import clean_exit, set_logging
from common.cli.program import REPOSITORY, Program
from common.config.overrides import Overrides
from common.console import Console
from common.errors import ConfigError, ContractError, DataError, RecipeError, StoreError, did_you_mean

if TYPE_CHECKING:
    from common.config.resolve import Resolved


def run(program: Program, overrides: Overrides, forced: frozenset[str] = frozenset()) -> None:
    from common.cli import output
    from common.engine.run import execute

    if overrides.get("domain") == "all" and "domains" not in overrides:
        _run_all(program, overrides, forced)
        return
    resolved, console = (resolve_made if forced else resolve_asked)(program, overrides)
    for name in forced:
        _check_stage(resolved, name)
        _require_begun(resolved)
    set_logging(console)
    output.heading(resolved, console)
    with clean_exit():
        outcome = execute(resolved, console, forced)
    output.result(resolved, outcome, console, overrides, program.command)


def rerun(program: Program, overrides: Overrides, *, stage: str) -> None:
    run(program, overrides, frozenset({stage}))


def _run_all(program: Program, overrides: Overrides, forced: frozenset[str]) -> None:
    from common.cli.all_domains import run_all, show_runs

    quiet, verbose = (overrides.get("run.verbosity") == loudness for loudness in ("quiet", "verbose"))
    console = Console("quiet" if quiet else "verbose" if verbose else "normal")
    set_logging(console)
    with clean_exit():
        runs = run_all(overrides, REPOSITORY, console, forced, program.results)
    show_runs(runs, console)
    failed = [run.domain for run in runs if run.problem]
    if failed:
        raise RecipeError(
            f"{len(failed)} of {len(runs)} domains failed ({', '.join(failed)}). The reasons are above. "
            "The same command continues with them."
        )


def plan(program: Program, overrides: Overrides, *, freeze: bool = False) -> None:
    from common.cli import output
    from common.cli.all_domains import DomainRun, plan_all
    from common.cost.limits import check_fits
    from common.engine.claim import check_folder
    from common.engine.frozen_plan import freeze as write_plan
    from common.engine.plan import make_plan
    from common.engine.preflight.settings import check_sharding

    console, failed = Console(), list[DomainRun]()
    many = overrides.get("domain") == "all" and "domains" not in overrides
    if many:
        plans, failed = plan_all(overrides, REPOSITORY, program.results)
    else:
        resolved, console = resolve_asked(program, overrides)
        check_sharding(resolved)
        plans = [make_plan(resolved)]
    for made in plans:
        output.plan(made, console, program)
        try:
            check_fits(made.outlook, [step.node.name for step in made.to_do])
            for line in made.check():
                console.line(line, always=True)
        except (ConfigError, DataError, ContractError) as error:
            if not many:
                raise
            failed.append(DomainRun(made.resolved.config.domain, problem=str(error)))
        if freeze:
            check_folder(made.resolved)
            console.line(f"Frozen: {write_plan(made.resolved)}", always=True)
    if many and plans:
        names = [run.domain for run in failed]
        output.plans_together([made for made in plans if made.resolved.config.domain not in names], names, console)
    if failed:
        lines = [f"{run.domain}: {run.problem}" for run in failed]
        raise RecipeError("\n".join([f"{len(failed)} domains cannot run:", *lines]))


def why(program: Program, overrides: Overrides, *, stage: str) -> None:
    from common.cli import output
    from common.engine.plan import make_plan

    resolved, console = resolve_asked(program, overrides)
    _check_stage(resolved, stage)
    output.why(make_plan(resolved), stage, console, program)


def data(program: Program, overrides: Overrides, *, role: str | None = None, rejects: str = "3") -> None:
    from common.cli.data import counter_of, show, show_forms, show_held_out, show_training
    from common.config.cleaning import KIND, PREFIX
    from common.config.resolve import EMBEDDED
    from common.data.tokens import general_texts
    from common.engine.corpora import pipeline_for
    from common.engine.plan import make_plan
    from common.engine.run import run_stage

    if "domains" in overrides:
        raise ConfigError("data shows the rows of one domain. Name it: domain=<name>.")
    if not rejects.isdecimal():
        raise ConfigError(f"rejects={rejects}: expected a number of rows for each reason, such as 3.")
    resolved, console = resolve_asked(program, overrides)
    if resolved.config.data == EMBEDDED:
        raise ConfigError(
            "The embedded knowledge is written by rule, so nothing is there to clean. Give data=<manifest> or data=hub."
        )
    listed = {} if resolved.pipeline.cleaned else {f"{KIND}.blocks": "[]"}  # rows are read, and the exam is kept out
    if "pipeline" not in overrides and (pipeline := pipeline_for(resolved)):
        listed["pipeline"] = pipeline
    resolved, console = resolve_asked(program, {**overrides, **listed})
    names = [node.name for node in resolved.nodes if node.kind == KIND]
    known = [name.removeprefix(PREFIX) for name in names]
    if role is not None and role not in known:
        raise ConfigError(f"role={role}: no stage of this run trains on it.{did_you_mean(role, known)}")
    if not names:
        raise ConfigError(f"The pipeline {resolved.config.pipeline} trains on no rows of this manifest.")
    set_logging(console)
    with clean_exit():
        wanted = [name for name in names if role in (None, name.removeprefix(PREFIX))]
        made = [run_stage(resolved, name, console) for name in wanted]
        plan = make_plan(resolved)
        counter, general = counter_of(plan), general_texts(plan.corpus)
        for artifact in made:
            show(artifact, console, int(rejects), counter, general)
            show_forms(plan, artifact, console)
        roles = [name.removeprefix(PREFIX) for name in wanted]
        show_held_out(plan, roles, console)
        show_training(plan, roles, console)


def config(program: Program, overrides: Overrides, *, describe: str | None = None) -> None:
    from common.cli import output

    console = Console()
    if describe is not None:
        from common.config.reference import describe as meaning_of

        for line in meaning_of(describe):
            console.line(line, always=True)
        if not overrides:
            console.line("Add domain=<name> to see its value in a run and which layer set it.")
            return
    resolved, console = resolve_asked(program, overrides, asks_hub=False)
    output.config(resolved, console, below=describe)


def preview(
    program: Program, overrides: Overrides, *, stage: str, rows: str = "5", at: str = "1", html: str | None = None,
    full: bool = False,
) -> None:  # fmt: skip
    from common.cli.preview import read_asked, show_stage

    asked = read_asked(rows, at, html)
    resolved, console = resolve_asked(program, overrides)
    _check_stage(resolved, stage)
    set_logging(console)
    show_stage(resolved, stage, asked, console, full=full)


def status(program: Program, overrides: Overrides, *, out: str | None = None) -> None:
    from common.cli import results

    results.status(REPOSITORY, results_of(program, out), Console())


def stage(program: Program, overrides: Overrides, *, plan: str, stage: str, force: bool = False) -> None:
    from common.engine.frozen_plan import thaw
    from common.engine.launch import is_launched
    from common.engine.run import run_stage
    from common.training.distributed import ranks

    resolved = thaw(Path(plan), overrides, REPOSITORY)
    console = Console(resolved.config.run.verbosity if ranks.is_main_process() else "quiet")
    _check_stage(resolved, stage)
    set_logging(console)
    with clean_exit():
        artifact = run_stage(resolved, stage, console, forced=force)
    if ranks.is_main_process() and not is_launched():
        console.line(f"  {stage}: {artifact.path.name}", always=True)


def chat(program: Program, overrides: Overrides, *, stage: str | None = None, prompt: str | None = None) -> None:
    from common.cli.chat import talk

    resolved, console = resolve_made(program, overrides)
    models = resolved.pipeline.stages
    if stage and stage not in models:
        raise ConfigError(f"The stage '{stage}' makes no model to talk to.{did_you_mean(stage, models)}")
    talk(resolved, stage, prompt, console)


def publish(program: Program, overrides: Overrides, *, to: str | None = None) -> None:
    from common.cli.output import short_path
    from common.engine.plan import make_plan
    from common.engine.repair import damage_of
    from common.engine.run import run_stage
    from common.store.artifacts import Store
    from common.store.runs import list_runs, run_of

    resolved, console = resolve_made(program, overrides)
    if to is not None:
        settings = resolved.config.stages["publish"].model_copy(update={"to": to})
        stages = {**resolved.config.stages, "publish": settings}
        resolved = replace(resolved, config=resolved.config.model_copy(update={"stages": stages}))
    waiting = [step for step in make_plan(resolved).to_do if step.node.name != "publish"]
    if waiting:
        if message := damage_of(waiting[0], run_of(resolved)):
            raise StoreError(message)
        chosen = next(f"{key}={overrides[key]}" for key in ("domains", "domain") if key in overrides)
        raise ConfigError(
            f"Nothing to publish yet: {waiting[0].node.name} is not made. "
            f"Run `just run {chosen}` first. " + list_runs(Store(resolved.out), resolved.config.domain)
        )
    with clean_exit():
        artifact = run_stage(resolved, "publish", console)
    metrics = artifact.manifest["metrics"]
    where = short_path(resolved.out / metrics["path"]) if metrics["to"] == "local" else metrics["path"]
    console.line(f"Published: {where}", always=True)


def gc(program: Program, overrides: Overrides, *, out: str | None = None, dry: bool = False) -> None:
    from common.cli.results import collected
    from common.store.artifacts import Store
    from common.store.collection import collect

    collected(collect(Store(results_of(program, out)), dry=dry), Console(), dry=dry)


def verify(program: Program, overrides: Overrides, *, out: str | None = None) -> None:
    from common.cli.results import verified
    from common.store.artifacts import Store

    different, total = verified(Store(results_of(program, out)), Console(), program)
    if different:
        raise StoreError(f"{different} of {total} results and published versions are not what was made; see above.")


def new_domain(program: Program, overrides: Overrides, *, name: str) -> None:
    from common.cli.new_domain import new_domain as make
    from common.cli.output import short_path

    parent = REPOSITORY / "domains" if program.in_clone else program.results
    domain, files = make(name, parent, REPOSITORY, command=program.command)
    console = Console()
    for path in files:
        console.line(f"  {short_path(path)}")
    console.line(f"It runs as it is: {program.command} run domain={domain}")
    console.line("Its files say what to replace in the example.")


def _require_begun(resolved: Resolved) -> None:
    """Check that there is a run of which a stage can be made again. Raises ConfigError."""
    from common.store.artifacts import Store
    from common.store.runs import list_runs, runs_in

    store, domain = Store(resolved.out), resolved.part_of or resolved.config.domain
    if not runs_in(store, domain):
        raise ConfigError(f"{list_runs(store, domain)} `just run` makes all its stages.")


def _check_stage(resolved: Resolved, name: str) -> None:
    known = [node.name for node in resolved.nodes]
    if name not in known:
        raise ConfigError(f"The pipeline {resolved.pipeline.name} has no stage '{name}'.{did_you_mean(name, known)}")
