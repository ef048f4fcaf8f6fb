"""What a run claims in its store before it works there: its folder, and the results that it reads and makes.

Usage: `with claimed(plan, console) as lease: ...`; `check_folder(resolved)` before a plan is frozen alone.

Waiting for another run that makes the same result is `common.engine.run`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from common.config.folders import names_in
from common.config.names import twins
from common.config.resolve import Resolved
from common.console import Console
from common.engine.frozen_plan import frozen
from common.engine.plan import Plan
from common.errors import ConfigError, StoreError
from common.store.artifacts import Store, fingerprint_of, writing
from common.store.leases import Lease, guarded, leased, under_way
from common.store.manifest import read_mapping
from common.store.runs import leads_to_result, move_old, run_of, runs_in
from common.training.distributed import ranks

WHERE = ("origins", "hub_revisions")  # keys of a frozen plan that two runs of one recipe may differ in


@contextlib.contextmanager
def claimed(plan: Plan, console: Console) -> Iterator[Lease]:
    """Hold a run's folder, and what its plan found, until the run ends; the main process does so for all.

    Raises ConfigError where the folder is another pipeline's, and StoreError where a run of another recipe is under
    way there: their links and summaries would be mixed.
    """
    resolved, artifacts = plan.resolved, Store(plan.resolved.out).artifacts
    if not ranks.is_main_process():
        yield Lease(artifacts, None)
        return
    with contextlib.ExitStack() as held:
        with writing(artifacts):
            check_folder(resolved)
            move_old_run(resolved, console)
            lease = held.enter_context(leased(artifacts, run=_run(resolved), recipe=_recipe(resolved)))
            lease.add(*(step.artifact.path.name for step in plan.steps if step.artifact is not None))
            check_folder(resolved)  # of two that began at once, at least one finds the other
        yield lease


def check_folder(resolved: Resolved) -> None:
    """Check that a run may write its folder. Raises ConfigError or StoreError."""
    folder = run_of(resolved)
    if leads_to_result(folder.path):
        raise ConfigError(f"{folder.path} is a link to a result. Give the run another name: name=<name>.")
    for other in names_in(folder.path.parent, ""):
        if twins([folder.name, other]):
            raise ConfigError(
                f"name={folder.name}: only capital letters tell it from the run {other}, and some disks do not see "
                "them. Give it another name: name=<name>."
            )
    held, ours = folder.pipeline, resolved.config.pipeline
    if held not in (None, ours):
        raise ConfigError(
            f"{folder.path} holds a run of the pipeline {held}, and this one is of {ours}. Give it another name: "
            "name=<name>."
        )
    _require_same_domains(resolved)
    run, recipe = _run(resolved), _recipe(resolved)
    for facts in under_way(Store(resolved.out).artifacts):
        if facts.get("run") == run and facts.get("recipe") != recipe:
            raise StoreError(
                f"A run of {folder.label} with other settings is under way (process {facts.get('pid')} on "
                f"{facts.get('host')}). Let it finish first, or give this run a name of its own: name=<name>."
            )


def _require_same_domains(resolved: Resolved) -> None:
    """Check that the runs of this name in a store are of the same domains. Raises ConfigError.

    Domains in sequence have their names joined, and a domain may be called so.
    """
    ours, domain = list(resolved.members), resolved.config.domain
    for run in runs_in(Store(resolved.out), domain):
        members = read_mapping(run.plan).get("members", {})
        theirs = list(members) if isinstance(members, dict) else []
        if run.plan.is_file() and theirs != ours:
            there, here = (f"domains={','.join(names)}" if names else f"domain={domain}" for names in (theirs, ours))
            raise ConfigError(
                f"{run.path.parent.parent} holds runs of {there}, and {here} would have the same folders. Keep its "
                "results elsewhere: out=<folder>."
            )


def move_old_run(resolved: Resolved, console: Console) -> None:
    """Give what is left of the time before runs had names a folder of its own, and say so."""
    store, config = Store(resolved.out), resolved.config
    old = store.runs / config.domain / config.profile
    if not any(path.is_symlink() or path.suffix == ".json" for path in (old.iterdir() if old.is_dir() else ())):
        return
    with guarded(store.artifacts):
        moved = move_old(store, config.domain, config.profile)
    if moved is not None:
        console.line(f"  The run in {old} is now in {moved.path}: each recipe has a folder of its own.", always=True)


def _run(resolved: Resolved) -> str:
    return f"{resolved.config.domain}/{run_of(resolved).label}"


def _recipe(resolved: Resolved) -> str:
    """Return what tells two runs apart that would write different things into one folder; never where they run."""
    return fingerprint_of(_what(frozen(resolved)))


def _what(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return a frozen plan, and those of a sequence's domains in it, without what only says where they run."""
    kept = {key: value for key, value in plan.items() if key not in WHERE}
    kept["config"] = {key: value for key, value in plan["config"].items() if key != "run"}
    if "members" in plan:
        kept["members"] = {name: _what(member) for name, member in plan["members"].items()}
    return kept
