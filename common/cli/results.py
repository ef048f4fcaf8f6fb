"""Print what the store holds: every domain at a glance, what was removed, and what is not what it was.

Usage: `results.status(repository, root, console)`; `results.collected(collect(store, dry=True), console, dry=True)`.

Plans and the table of a run are `common.cli.output`.
"""

from __future__ import annotations

from pathlib import Path

from common.cli.output import published_of, short_path, short_score, table
from common.cli.program import Program
from common.config.folders import names_in
from common.config.json import UNREADABLE, read_json
from common.config.names import check_name
from common.config.pipeline import parse_pipeline
from common.console import Console
from common.store.artifacts import Store
from common.store.collection import Found
from common.store.manifest import MANIFEST
from common.store.runs import RunFolder, runs_in
from common.store.verify import size_of_all, verify


def status(repository: Path, root: Path, console: Console) -> None:
    """Print a line for each run: scores of base and published checkpoint, versions, what is not done.

    Domains from elsewhere show where they have been run.
    """
    rows = []
    shipped = names_in(repository / "domains", "")
    for domain in [*shipped, *(name for name in names_in(root / "runs", "") if name not in shipped)]:
        runs = runs_in(Store(root), domain)
        for run in runs:
            for pipeline, *shown, seconds in filter(None, (_finished(run), _unfinished(run))):
                name = pipeline if run.name in ("", pipeline) else f"{run.name} ({pipeline})"
                rows.append([domain, run.profile, name, *shown, _published(run), seconds])
        if not runs:
            rows.append([domain, "-", "-", "not run yet", "", "-", ""])
    header = ["domain", "profile", "run (pipeline)", "domain exam", "general exam", "published", "seconds"]
    table(console, header, rows, numeric=(6,), spare=1)


def _published(run: RunFolder) -> str:
    """Return the version, or the place on the Hub, that a run has published."""
    try:
        metrics = read_json(run.path / "publish" / MANIFEST, strict=False)["metrics"]
        return str(metrics.get("version") or metrics["to"])
    except UNREADABLE:
        return "-"


def _finished(run: RunFolder) -> list[str] | None:
    """Return pipeline, both exams and seconds of the last run that reached its card, if one did."""
    if not run.summary.is_file():
        return None
    try:
        summary = read_json(run.summary, strict=False)
        first, last = summary["checkpoints"][0], published_of(summary)
        exams = [f"{short_score(first, side)} -> {short_score(last, side)}" for side in ("domain", "general")]
        return [check_name("pipeline", summary["pipeline"]), *exams, f"{summary['total_seconds']:.0f}"]
    except UNREADABLE:
        return ["?", "summary.json cannot be read", "", ""]


def _unfinished(run: RunFolder) -> list[str] | None:
    """Return the same for a plan without a newer card: its run is under way, was stopped, or has not started."""
    again = run.summary.is_file()
    if not run.plan.is_file() or (again and run.summary.stat().st_mtime_ns >= run.plan.stat().st_mtime_ns):
        return None
    try:
        pipeline = parse_pipeline(read_json(run.plan)["pipeline"], run.plan)
        names = [node.name for node in pipeline.nodes()]
    except UNREADABLE:
        return ["?", "plan.json cannot be read", "", ""]
    made = sum((run.path / name / MANIFEST).is_file() for name in names)
    # Links of the run before stand beside those of a new one.
    return [pipeline.name, "not finished" if again else f"not finished: {made} of {len(names)} stages made", "", ""]


def collected(found: Found, console: Console, *, dry: bool) -> None:
    """Print what was removed, or would be, and what stays because this store did not make it."""
    for folder, size in found.unused:
        console.line(f"  {folder.name}  {size / 1e6:,.1f} MB")
    for path, reason in found.foreign:
        console.line(f"  left alone: {short_path(path)}: {reason}")
    total = f"{len(found.unused)} folders, {sum(size for _, size in found.unused) / 1e6:,.1f} MB"
    console.line(f"{'would remove' if dry else 'removed'} {total}")


def verified(store: Store, console: Console, program: Program) -> tuple[int, int]:
    """Read everything that the store made, and print what differs; return how many do, of how many."""
    different = total = done = 0
    with console.progress("verify", size_of_all(store), "bytes") as bar:

        def read(size: int) -> None:
            nonlocal done
            done += size
            bar.update(done)

        for found in verify(store, read):
            total += 1
            if found is not None:
                different += found.matters
                line = f"  {short_path(found.path)}: {found.problem}. {found.advice}"
                console.line(program.say(line), always=True)
    console.line(f"{total} results and published versions, {done / 1e6:,.1f} MB read, {different} different")
    return different, total
