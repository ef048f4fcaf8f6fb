"""Run every shipped domain in one process, one after another: equal stages are made once, a failure stops no other.

Usage: `just run domain=all`; all further overrides hold for each of them.

It runs what `common.engine.run` runs. Running many stages at once, or on several machines, is a scheduler's work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.cli.output import heading, outcome_notes, published_of, short_score, table
from common.config.folders import names_in
from common.config.json import read_json
from common.config.resolve import Resolved, resolve
from common.console import Console
from common.engine.plan import Plan, make_plan
from common.engine.preflight.settings import check_sharding
from common.engine.run import Outcome, execute
from common.engine.settle import settled
from common.errors import ConfigError, RecipeError, did_you_mean, first_line
from common.store.runs import run_of

logger = logging.getLogger(__name__)


@dataclass
class DomainRun:
    """The result of one domain's run, or the problem that stopped it."""

    domain: str
    resolved: Resolved | None = None
    outcome: Outcome | None = None
    problem: str = ""
    seconds: float = 0.0


def plan_all(
    overrides: Mapping[str, str], repository: Path, results: Path | None = None
) -> tuple[list[Plan], list[DomainRun]]:
    """Plan every domain. Returns the plans, and a DomainRun with its problem for each that cannot run.

    Raises ConfigError for overrides that only one domain can have.
    """
    data = overrides.get("data", "embedded")
    if data not in ("embedded", "hub"):
        raise ConfigError(f"data={data} belongs to one domain. With domain=all, use data=embedded or data=hub.")
    plans, failed = [], []
    for domain in names_in(repository / "domains", ""):
        try:
            resolved = settled(resolve({**overrides, "domain": domain}, repository, results))
            check_sharding(resolved)
            plans.append(make_plan(resolved))
        except RecipeError as error:
            failed.append(DomainRun(domain, problem=str(error)))
    return plans, failed


def run_all(
    overrides: Mapping[str, str], repository: Path, console: Console, forced: frozenset[str],
    results: Path | None = None,
) -> list[DomainRun]:  # fmt: skip
    """Run every domain that can be planned. A problem in one is reported and the next one begins.

    Raises ConfigError where the same problem stops every domain, such as a mistyped key, and for a forced stage that
    no pipeline has.
    """
    plans, runs = plan_all(overrides, repository, results)
    if not plans and len({run.problem for run in runs}) == 1:
        raise ConfigError(runs[0].problem)
    known = sorted({node.name for plan in plans for node in plan.resolved.nodes})
    for name in sorted(forced - set(known)):
        raise ConfigError(f"No domain's pipeline has a stage '{name}'.{did_you_mean(name, known)}")
    for run in runs:
        console.lines(f"{run.domain} cannot run: {run.problem}")
    for plan in plans:
        resolved = plan.resolved
        run = DomainRun(resolved.config.domain, resolved)
        runs.append(run)
        heading(resolved, console)
        started = time.monotonic()
        try:
            run.outcome = execute(resolved, console, forced)
            for line in outcome_notes(run.outcome):
                console.line(f"{run.domain}: {line}", always=True)
        except RecipeError as error:
            run.problem = str(error)
        except Exception as error:  # a bug in one domain's data or code must not cost the others their night
            logger.exception("%s failed", run.domain)
            run.problem = f"unexpected {type(error).__name__}: {first_line(error)}"
        run.seconds = time.monotonic() - started
        if run.problem:
            console.lines(f"{run.domain} failed: {run.problem}")
    return sorted(runs, key=lambda run: run.domain)


def show_runs(runs: Sequence[DomainRun], console: Console) -> None:
    """Print one line per domain: its exam at every checkpoint, the general exam first and last, and the result."""
    names: dict[str, None] = {}
    summaries = {}
    for run in runs:
        if run.outcome is not None and run.resolved is not None:
            summaries[run.domain] = read_json(run_of(run.resolved).summary, strict=False)
            names |= dict.fromkeys(point["name"] for point in summaries[run.domain]["checkpoints"])
    rows = []
    for run in runs:
        points = {point["name"]: point for point in summaries.get(run.domain, {}).get("checkpoints", ())}
        scores = [short_score(points[name], "domain") if name in points else "-" for name in names]
        general = "-"
        if summary := summaries.get(run.domain):
            ends = (summary["checkpoints"][0], published_of(summary))
            general = " -> ".join(short_score(point, "general") for point in ends)
        rows.append([run.domain, *scores, general, f"{run.seconds:.0f}", _result(run)])
    console.line()
    header = ["domain exam", *names, "general exam", "seconds", "result"]
    table(console, header, rows, numeric=(*range(1, len(names) + 1), len(names) + 2))
    if all(run.outcome is not None and not run.outcome.made for run in runs):
        console.line(f"Nothing to do: all {len(runs)} domains are up to date.", always=True)


def _result(run: DomainRun) -> str:
    if run.outcome is None:
        return "failed: " + run.problem.splitlines()[0][:60]
    return f"{len(run.outcome.made)} stages made" if run.outcome.made else "up to date"
