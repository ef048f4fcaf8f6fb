"""The command line: a command and `key=value` words.

Usage: `python -m common run domain=medical cpt.train.learning_rate=1e-3`, usually through `just`.

It prints; everything it calls logs or returns. Nothing heavy is imported before a stage runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from common.config.overrides import Overrides as Words
from common.config.overrides import parse, refuse_rest, take
from common.console import Console
from common.errors import ConfigError, RecipeError, did_you_mean

REPOSITORY = Path(__file__).resolve().parents[2]
LAST_CALLS = 4  # of a traceback, that are told where a process of several dies


def _resolve(words: Words) -> tuple[Any, Console]:
    from common.config.resolve import resolve

    if words.get("domain") == "all":
        raise ConfigError("domain=all is for run, rerun and plan; say one domain here.")

    resolved = resolve(words, REPOSITORY)
    return resolved, Console(resolved.config.run.verbosity)


def _stage_name(resolved: Any, name: str) -> str:
    known = [node.name for node in resolved.nodes]
    if name not in known:
        raise ConfigError(f"The pipeline {resolved.pipeline.name} has no stage '{name}'.{did_you_mean(name, known)}")
    return name


def run(words: Words, forced: frozenset[str] = frozenset()) -> None:
    """Make what is missing and show the result; domain=all runs every domain."""
    from common.cli import output
    from common.engine.run import execute

    if words.get("domain") == "all":
        _run_all(words, forced)
        return

    resolved, console = _resolve(words)
    for name in forced:
        _stage_name(resolved, name)
    _set_logging(console)
    output.heading(resolved, console)
    with clean_exit():
        outcome = execute(resolved, console, forced)
    output.result(resolved, outcome, console, words)


def _run_all(words: Words, forced: frozenset[str]) -> None:
    from common.cli.all_domains import run_all, show_runs

    quiet, verbose = (words.get("run.verbosity") == loudness for loudness in ("quiet", "verbose"))
    console = Console("quiet" if quiet else "verbose" if verbose else "normal")
    _set_logging(console)
    with clean_exit():
        runs = run_all(words, REPOSITORY, console, forced)
    show_runs(runs, console)
    failed = [run.domain for run in runs if run.problem]
    if failed:
        raise RecipeError(
            f"{len(failed)} of {len(runs)} domains failed ({', '.join(failed)}); the reasons are above. "
            "The same command goes on with them."
        )


def rerun(words: Words) -> None:
    """Make one stage again; what depends on it follows only where its result differs."""
    stage = take(words, "stage", "rerun", needed=True)
    run(words, frozenset({str(stage)}))


def plan(words: Words) -> None:
    """Show what a run would do and why, before anything is spent; freeze=true writes it for a scheduler."""
    from common.cli import output
    from common.cost.limits import check_fits
    from common.engine.plan import make_plan, store_of
    from common.engine.preflight.settings import check_sharding

    freeze_it = take(words, "freeze", "plan") or "false"
    if freeze_it not in ("true", "false"):
        raise ConfigError(f"freeze={freeze_it}: expected true or false.")
    if words.get("domain") == "all":
        _plan_all(words, freeze_it == "true")
        return
    resolved, console = _resolve(words)
    check_sharding(resolved)
    made = make_plan(resolved)
    output.plan(made, console)
    check_fits(made.outlook, [step.node.name for step in made.to_do])
    if freeze_it == "true":
        from common.engine.views import freeze

        console.line(f"Frozen: {freeze(resolved, store_of(resolved))}", always=True)


def _plan_all(words: Words, freeze_them: bool) -> None:
    from common.cli import output
    from common.cli.all_domains import DomainRun, plan_all
    from common.cost.limits import check_fits
    from common.engine.plan import store_of
    from common.engine.views import freeze

    console = Console()
    plans, failed = plan_all(words, REPOSITORY)
    for made in plans:
        output.plan(made, console)
        try:
            check_fits(made.outlook, [step.node.name for step in made.to_do])
        except ConfigError as error:
            failed.append(DomainRun(made.resolved.config.domain, problem=str(error)))
        if freeze_them:
            console.line(f"Frozen: {freeze(made.resolved, store_of(made.resolved))}", always=True)
    if failed:
        lines = [f"{run.domain}: {run.problem}" for run in failed]
        raise RecipeError("\n".join([f"{len(failed)} domains cannot run:", *lines]))


def why(words: Words) -> None:
    """Name the inputs of a stage that changed."""
    from common.cli import output
    from common.engine.plan import make_plan

    name = str(take(words, "stage", "why", needed=True))
    resolved, console = _resolve(words)
    _stage_name(resolved, name)
    output.why(make_plan(resolved), name, console)


def config(words: Words) -> None:
    """Show the resolved configuration, each value with the layer that set it."""
    from common.cli import output

    resolved, console = _resolve(words)
    output.config(resolved, console)


def status(words: Words) -> None:
    """Show every domain at a glance."""
    from common.cli import output

    out = take(words, "out", "status")
    refuse_rest(words, "status", ("out",))
    output.status(REPOSITORY, Path(out) if out else REPOSITORY, Console())


def stage(words: Words) -> None:
    """Run one stage of a frozen plan, alone: idempotent, under its lock."""
    from common.engine.frozen_plan import thaw
    from common.engine.launch import is_launched
    from common.engine.run import run_stage
    from common.training.distributed import ranks

    forced = take(words, "force", "stage") or "false"
    if forced not in ("true", "false"):
        raise ConfigError(f"force={forced}: expected true or false.")
    path, name = take(words, "plan", "stage", needed=True), take(words, "stage", "stage", needed=True)
    resolved = thaw(Path(str(path)), words, REPOSITORY)
    console = Console(resolved.config.run.verbosity if ranks.is_main_process() else "quiet")
    _stage_name(resolved, str(name))
    _set_logging(console)
    with clean_exit():
        artifact = run_stage(resolved, str(name), console, forced=forced == "true")
    if ranks.is_main_process() and not is_launched():
        console.line(f"  {name}: {artifact.path.name}", always=True)


def chat(words: Words) -> None:
    """Talk to a checkpoint: the published one, or stage=<name>."""
    from common.cli.chat import talk

    stage_name, prompt = take(words, "stage", "chat"), take(words, "prompt", "chat")
    resolved, console = _resolve(words)
    models = resolved.pipeline.stages
    if stage_name and stage_name not in models:
        raise ConfigError(f"'{stage_name}' is no stage that makes a model.{did_you_mean(stage_name, models)}")
    if prompt is not None and not prompt.strip():
        raise ConfigError("prompt is empty; ask something, or leave it out to hold a conversation.")
    name = stage_name or resolved.pipeline.publish
    talk(resolved, name, prompt, console)


def publish(words: Words) -> None:
    """Publish a finished run: to=local, to=hub:<owner>/<name>."""
    from common.engine.plan import make_plan
    from common.engine.run import run_stage

    given = dict(words)
    to = take(words, "to", "publish")
    if to is not None:
        words["publish.to"] = f'"{to}"'  # quoted: hub: alone would be read as a mapping
    resolved, console = _resolve(words)
    waiting = [step.node.name for step in make_plan(resolved).to_do if step.node.name != "publish"]
    if waiting:
        raise ConfigError(
            f"Nothing to publish yet: {waiting[0]} is not made. Run `just run domain={resolved.config.domain}` first."
        )
    with clean_exit():
        artifact = run_stage(resolved, "publish", console)
    metrics = artifact.manifest["metrics"]
    place = str(resolved.out / metrics["path"]) if metrics["to"] == "local" and "out" in given else str(metrics["path"])
    console.line(f"Published: {place}", always=True)


def gc(words: Words) -> None:
    """Remove results that no run refers to; dry=true only lists them."""
    from common.store.artifacts import Store

    out, dry = take(words, "out", "gc"), take(words, "dry", "gc") or "false"
    refuse_rest(words, "gc", ("out", "dry"))
    if dry not in ("true", "false"):
        raise ConfigError(f"dry={dry}: expected true or false.")
    removed = Store(Path(out) if out else REPOSITORY).collect(dry=dry == "true")
    console = Console()
    for folder, size in removed:
        console.line(f"  {folder.name}  {size / 1e6:,.1f} MB")
    verb = "would remove" if dry == "true" else "removed"
    console.line(f"{verb} {len(removed)} folders, {sum(size for _, size in removed) / 1e6:,.1f} MB")


def new_domain(words: Words) -> None:
    """Make the folder of a new domain: name=<name>."""
    from common.cli.new_domain import new_domain as make

    name = str(take(words, "name", "new-domain", needed=True))
    refuse_rest(words, "new-domain", ("name",))
    console = Console()
    for path in make(name, REPOSITORY):
        console.line(f"  {path.relative_to(REPOSITORY).as_posix()}")
    console.line(f"It runs as it is: just run domain={name}. Its files say what to put in place of the example.")


COMMANDS: dict[str, Callable[[Words], None]] = {
    "run": run, "plan": plan, "why": why, "rerun": rerun, "status": status, "config": config,
    "chat": chat, "publish": publish, "stage": stage, "gc": gc, "new-domain": new_domain,
}  # fmt: skip


def _set_logging(console: Console) -> None:
    level = {"quiet": logging.ERROR, "normal": logging.WARNING, "verbose": logging.INFO}[console.verbosity]
    logging.basicConfig(level=logging.WARNING, format="  %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("common").setLevel(level)


@contextlib.contextmanager
def clean_exit() -> Iterator[None]:
    """Let the signals of schedulers stop a run as Ctrl-C does, and end the checking process with it."""
    from common.training.loop.stopping import Preempted

    def stop(signum: int, frame: Any) -> NoReturn:
        raise Preempted(signum)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        fit = sys.modules.get("common.training.fit")
        if fit is not None:
            fit.clean_process.close()


def main(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code.

    0; 1 for a user's mistake; 130 when stopped by hand; 75 when a scheduler's signal stopped it and it may go on later.
    """
    # Set before any numeric library loads: threads that spin long while they wait make a shared machine crawl.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    from common.engine.launch import TEMPORARY, enter

    errors = Console(stream=sys.stderr)
    failed = enter()
    try:
        command, words = parse(arguments, COMMANDS)
        COMMANDS[command](words)
    except RecipeError as error:
        if not failed(str(error)):
            errors.line(f"error: {error}", always=True)
        return 1
    except KeyboardInterrupt as stop:
        errors.line(
            "\nStopped. Finished stages are kept; the same command continues where this one stopped.", always=True
        )
        return 130 if getattr(stop, "signum", signal.SIGINT) == signal.SIGINT else TEMPORARY
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:
        failed(traceback.format_exc(limit=-LAST_CALLS), trace=True)
        raise
    return 0
