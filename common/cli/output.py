"""Print plans, reasons, configurations and results for people.

Usage: `output.plan(make_plan(resolved), console, program)`.

Rich is imported only where a table is drawn, so that short answers stay instant.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.plan_costs import Total, memory_of, shortly, tokens_of, totals
from common.cli.program import IN_CLONE, Program
from common.config.json import read_json
from common.config.overrides import flatten
from common.config.precision import AUTO
from common.config.resolve import Resolved
from common.config.trl_block import told_lines
from common.console import Console
from common.cost.hardware import GIB
from common.engine.preflight import hardware
from common.engine.preflight.backends import emulated
from common.engine.preflight.domain_code import code_lines
from common.report.licences import licence_notes
from common.store.runs import run_of

if TYPE_CHECKING:  # what a run needs is loaded by those who run
    from common.engine.plan import Plan
    from common.engine.run import Outcome

DEFAULT = "default"
LEAST_ROOM = 16  # columns; text that is wrapped into less is harder to read than lines that a terminal breaks
LONGEST_REASON = 24  # letters of a plan's reason that stand in its row
SHORT = 16  # letters of a setting's value that stand in its row


def table(
    console: Console, header: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Sequence[int] = (),
    spare: int = 0,
) -> None:  # fmt: skip
    """Print aligned columns; those in `numeric` to the right.

    In a terminal that is too narrow, the `spare` last columns are left out, and the last one that stays is wrapped.
    """
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    columns = shutil.get_terminal_size().columns if console.terminal else sys.maxsize
    if spare and sum(widths) + 2 * len(widths) > columns:
        widths = widths[:-spare]
    indent = sum(widths[:-1]) + 2 * len(widths)
    for row in (header, *rows):
        cells = [
            cell.rjust(width) if i in numeric else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        room = columns - indent
        last = cells.pop()
        first, *more = (textwrap.wrap(last, room) if LEAST_ROOM <= room < widths[-1] else None) or [last]
        console.line(("  " + "  ".join([*cells, first])).rstrip(), always=True)
        for line in more:
            console.line(" " * indent + line, always=True)


def heading(resolved: Resolved, console: Console) -> None:
    config = resolved.config
    data = {"embedded": "embedded knowledge", "hub": "the domain's Hub data"}.get(config.data, Path(config.data).name)
    precision = _precision(resolved)
    what = f"pipeline {config.pipeline}, profile {config.profile}, {data}, seed {config.seed}{precision}"
    console.line(f"{config.domain}: {what}")
    for sentence in told_lines(resolved.origins):
        for line in textwrap.wrap(sentence, shutil.get_terminal_size((120, 0)).columns - 4, subsequent_indent="  "):
            console.line(f"  {line}")


def _precision(resolved: Resolved) -> str:
    """Return what stages train in, with the reason where nobody chose it; nothing where none trains."""
    found: dict[str, dict[str, str]] = {}  # precision -> stage -> reason
    for name, settings in resolved.config.stages.items():
        if (precision := getattr(settings, "precision", AUTO)) != AUTO:
            origin = resolved.origins.get(f"{name}.precision", "").partition(f"{AUTO}: ")[2]
            found.setdefault(precision, {})[name] = origin
    if len(found) == 1:
        ((precision, reasons),) = found.items()
        reason, *others = set(reasons.values())
        return f", {precision}" + (f" ({reason})" if reason and not others else "")
    return "".join(f"; {precision}: {', '.join(stages)}" for precision, stages in found.items())


def result(
    resolved: Resolved, outcome: Outcome, console: Console, overrides: Mapping[str, str], command: str = "just"
) -> None:
    """Print the chain's table, what was made, and where the model and its card are. `overrides` chose the run."""
    same_run = shlex.join(f"{key}={value}" for key, value in overrides.items())
    folder = run_of(resolved)
    summary = read_json(folder.summary, strict=False)
    console.line()
    scores(summary, console)
    matrix(outcome.artifacts["card"].manifest["metrics"], console)
    console.line()
    if not outcome.made:
        console.line(f"Nothing to do: all {len(outcome.artifacts)} stages are up to date.", always=True)
    for line in outcome_notes(outcome):
        console.line(line, always=True)
    metrics = outcome.artifacts["publish"].manifest["metrics"]
    console.line(f"Card:  {short_path(folder.path)}/card/README.md", always=True)
    if published := metrics.get("path"):
        where = short_path(resolved.out / published) if metrics["to"] == "local" else published
        console.line(f"Model: {where}", always=True)
    if (latest := metrics.get("latest")) not in (None, metrics.get("version")):
        move = f"{command} publish {same_run} publish.latest=true"
        console.line(f"{latest} of another run stays the latest. To move it here: {move}", always=True)
    if outcome.made:
        console.line(f"Talk to it: {command} chat {same_run}")


def outcome_notes(outcome: Outcome) -> list[str]:
    """Return what whoever reads no card should know: that what is published lost much, or has no known licence."""
    metrics = outcome.artifacts["card"].manifest["metrics"]
    choice = metrics.get("choice") or {}
    shown = choice.get("lost") is not None
    return [*([choice["sentence"]] if shown else []), *(f"Licences: {note}" for note in metrics.get("licences", ()))]


def short_path(path: Path) -> str:
    """Return a path from the current folder on, where it is below."""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()


def scores(summary: Mapping[str, Any], console: Console) -> None:
    """Print one line per checkpoint: both exams with their intervals, bits per byte, tokens, seconds."""
    rows = []
    for point in summary["checkpoints"]:
        bits = point["bits_per_byte"]
        rows.append([
            point["name"],
            *(_score(point["exam"].get(side)) for side in ("general", "domain")),
            *(f"{bits[side]:.3f}" if bits.get(side) is not None else "-" for side in ("general", "domain")),
            f"{point['tokens']:,}",
            f"{point['seconds']:.0f}",
        ])  # fmt: skip
    header = ["stage", "general [95%]", "domain [95%]", "bits/byte gen.", "bits/byte dom.", "tokens", "seconds"]
    table(console, header, rows, numeric=(3, 4, 5, 6), spare=2)


def matrix(metrics: Mapping[str, Any], console: Console) -> None:
    """Print, of a sequence of domains, bits per byte and score of every checkpoint on every domain."""
    if rows := metrics.get("matrix"):
        console.line()
        header = ["bits/byte, score on", *metrics["domains"]]
        table(console, header, rows, numeric=range(1, len(header)))


def _score(score: Mapping[str, Any] | None) -> str:
    return f"{score['score']:.2f} [{score['low']:.2f}, {score['high']:.2f}]" if score else "-"


def plan(made: Plan, console: Console, program: Program = IN_CLONE) -> None:
    """Print each stage's state with its reasons, tokens, memory by phase and estimated time, and the totals."""
    heading(made.resolved, console)
    rows = []
    for step in made.steps:
        todo = step.state != "cached"
        why = "" if not step.reasons else "see below" if _is_long(step.reasons) else step.reasons[0]
        tokens = tokens_of(step) if todo else ""
        seconds = "?" if step.seconds is None else shortly(step.seconds)
        memory = memory_of(made.outlook, step.node.name) if todo else ""
        rows.append([step.node.name, step.state, tokens, memory, seconds if todo else "", why])
    table(console, ["stage", "state", "tokens", "peak memory", "time", "why"], rows, numeric=(2, 4))
    for step in made.steps:
        for reason in step.reasons if _is_long(step.reasons) else ():
            console.line(f"  {step.node.name}: {program.say(reason)}", always=True)
    if not made.to_do:
        console.line("Nothing to do.", always=True)
        return
    for line in _below_the_table(made):
        console.line(line, always=True)


def _below_the_table(made: Plan) -> Iterator[str]:
    """Yield what a plan with work to do says below its table."""
    yield from made.notes
    yield from totals(made)
    yield from (f"Source {name}: {shape}" for name, shape in made.corpus.shapes().items())
    yield from (f"Source {name}: {line}" for name, found in made.corpus.findings().items() for line in found)
    yield from code_lines(made.resolved)
    if slow := emulated(made.resolved.config, [step.node.name for step in made.to_do]):
        yield slow
    if made.resolved.config.model.path is not None:
        yield f"Licence of what is published: {made.licence.sentence}"
    yield from (f"Licences: {note}" for note in licence_notes(made.licence))
    if lacking := hardware.missing(made.resolved):
        yield f"It cannot run here: {hardware.explanation(made.resolved, lacking)}"
    if any(step.state == "waits" for step in made.steps):
        yield "A waiting stage is reused if its inputs turn out identical."


def plans_together(plans: Sequence[Plan], failed: Sequence[str], console: Console) -> None:
    """Print what the plans of several domains need, a line for each, and together: what they share is made once."""
    sums = [(made.resolved.config.domain, Total.of(made)) for made in plans]
    shared = set[str]()
    whole = sum((Total.of(made, shared) for made in plans), Total())
    rows = []
    for name, total in [*sums, ("together", whole)]:
        time = shortly(total.seconds) + (f" + {total.unknown} unknown" if total.unknown else "")
        disk = "?" if total.disk is None else f"{total.disk / GIB:.1f}"
        price = "" if total.price is None else f"{total.price:,.2f}"
        rows.append([name, str(total.stages), total.tokens_shown, time, disk, price])
    rows[-1:-1] = [[name, "cannot run", "", "", "", ""] for name in failed]
    header = ["domain", "stages", "tokens", "time", "disk in GiB", "price"]
    width = len(header) - (whole.price is None)
    console.line(always=True)
    table(console, header[:width], [row[:width] for row in rows], numeric=range(1, width))


def _is_long(reasons: Sequence[str]) -> bool:
    return len(reasons) > 1 or any(len(reason) > LONGEST_REASON for reason in reasons)


def why(made: Plan, name: str, console: Console, program: Program = IN_CLONE) -> None:
    """Print one stage's state and every input that changed."""
    step = next(step for step in made.steps if step.node.name == name)
    lines = [f"{name} {'waits' if step.state == 'waits' else f'is {step.state}'}", *(f"  {r}" for r in step.reasons)]
    if step.state == "waits":
        first = next(s for s in made.steps if s.state in ("missing", "stale"))
        lines += [f"  the first stage to do is {first.node.name} ({first.state})", *(f"    {r}" for r in first.reasons)]
    for line in lines:
        console.line(program.say(line), always=True)


def config(resolved: Resolved, console: Console, below: str | None = None) -> None:
    """Print every key with its value and the layer that set it; with `below` that key, or those of that block."""
    dumped = resolved.config.model_dump(mode="json", exclude={"stages"})
    stages = {name: settings.model_dump(mode="json") for name, settings in resolved.config.stages.items()}
    rows = []
    for key, value in flatten({**dumped, **stages}).items():
        if below is not None and key != below and not key.startswith(f"{below}."):
            continue
        origin = "chosen" if key in ("domain", "profile", "pipeline") else _origin(key, resolved.origins)
        rows.append((key, json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value, origin))
    width = max((len(key) for key, *_ in rows), default=0)
    console.line(f"  {'key':<{width}}  {'value':<{SHORT}}  set by", always=True)
    for key, value, origin in rows:
        long = len(value) > SHORT
        console.line(f"  {key:<{width}}  {'(below)' if long else value:<{SHORT}}  {origin}", always=True)
        for line in textwrap.wrap(value, shutil.get_terminal_size().columns - 6) if long else ():
            console.line(f"      {line}", always=True)


def _origin(key: str, origins: Mapping[str, str]) -> str:
    """Return the layer of a key, or of the nearest block above it that was set whole."""
    while key and key not in origins:
        key = key.rpartition(".")[0]
    return origins.get(key, DEFAULT)


def published_of(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the published checkpoint of a summary; older ones do not say which it is, and end with it."""
    points: Sequence[Mapping[str, Any]] = summary["checkpoints"]
    return next((point for point in points if point["name"] == summary.get("published")), points[-1])


def short_score(point: Mapping[str, Any], side: str) -> str:
    score = point["exam"].get(side)
    return f"{score['score']:.2f}" if score else "-"
