"""Which run the overrides of a command mean: a new one, or one that is there under its name.

Usage: `resolved, console = resolve_asked(program, overrides)`, or `resolve_made(program, overrides)` for what is there.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli.program import REPOSITORY, Program
from common.config.overrides import Overrides
from common.console import Console
from common.errors import ConfigError

if TYPE_CHECKING:
    from common.config.resolve import Resolved
    from common.store.runs import RunFolder


def resolve_asked(program: Program, overrides: Overrides, *, asks_hub: bool = True) -> tuple[Resolved, Console]:
    """Resolve a run. For a name and no setting it has those with which the run of that name was last planned."""
    from common.engine.frozen_plan import given_in
    from common.engine.ordering import resolve_run
    from common.engine.settle import settled
    from common.models.source import commit_of

    if overrides.get("domain") == "all" and "domains" not in overrides:
        raise ConfigError("domain=all works with run, rerun and plan only. Name one domain here.")
    planned = _planned(program, overrides)
    given = given_in(planned.plan) if planned is not None else {}
    asked = {**given, **overrides}
    resolved = settled(resolve_run(asked, REPOSITORY, program.results), commit_of if asks_hub else None)
    console = Console(resolved.config.run.verbosity)
    if given:
        words = shlex.join(f"{key}={value}" for key, value in given.items() if key not in overrides)
        console.line(f"As last planned under name={overrides['name']}: {words}")
    return resolved, console


def resolve_made(program: Program, overrides: Overrides) -> tuple[Resolved, Console]:
    """Resolve a run that is there: for its name and no setting, as it was last planned under that name.

    Raises ConfigError, with the runs that there are, where none has the name.
    """
    from common.engine.frozen_plan import thaw
    from common.store.artifacts import Store
    from common.store.runs import list_runs

    if "name" not in overrides or _settings_in(overrides):
        return resolve_asked(program, overrides)
    root = results_of(program, overrides.get("out"))
    if (planned := _planned(program, overrides)) is None:
        domain = _domain_of(overrides)
        runs = list_runs(Store(root), domain)
        raise ConfigError(f"There is no run name={overrides['name']} of {domain} as asked for. {runs}")
    where = {key: value for key, value in overrides.items() if key.startswith("run.")}
    resolved = thaw(planned.plan, {**where, "out": str(root)}, REPOSITORY)
    return resolved, Console(resolved.config.run.verbosity)


def _planned(program: Program, overrides: Overrides) -> RunFolder | None:
    """Return the run that a name without settings means, if it was planned. Raises ConfigError for several."""
    from common.config.names import check_name
    from common.store.artifacts import Store
    from common.store.runs import runs_in

    if "name" not in overrides or any(not key.startswith("publish.") for key in _settings_in(overrides)):
        return None
    name, profile, pipeline = (overrides.get(key) for key in ("name", "profile", "pipeline"))
    check_name("name", name)
    runs = runs_in(Store(results_of(program, overrides.get("out"))), _domain_of(overrides))
    named = [each for each in runs if each.name == name and profile in (None, each.profile)]
    found = [each for each in named if pipeline in (None, each.pipeline) and each.plan.is_file()]
    if len(found) > 1:
        labels = ", ".join(each.label for each in found)
        raise ConfigError(f"name={name}: there is {labels}. Say which with profile=<profile>.")
    return found[0] if found else None


def _settings_in(overrides: Overrides) -> set[str]:
    """Return the keys that change what a run makes, and not only which run it is or where it runs."""
    chosen = {"domain", "domains", "profile", "pipeline", "name", "out"}
    return {key for key in overrides if key not in chosen and not key.startswith("run.")}


def _domain_of(overrides: Overrides) -> str:
    """Return the domain of a run, or what several are called together."""
    from common.config.folders import find_domain
    from common.config.sequence import name_of, read_domains

    given = read_domains(overrides, REPOSITORY) if "domains" in overrides else [overrides.get("domain", "")]
    return name_of([find_domain(each, REPOSITORY).name for each in given])


def results_of(program: Program, out: str | None) -> Path:
    """Return the folder of the results."""
    return Path(out or program.results).absolute()
