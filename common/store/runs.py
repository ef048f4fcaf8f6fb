"""The folder of one run, `runs/<domain>/<profile>/<name>/`: links to its results, its frozen plan, its summary.

Usage: `folder = run_of(resolved)`; `folder.link("sft", artifact)`; `folder.plan.is_file()`.

A run is named by its pipeline, or by `name=`, so that two recipes have folders of their own. Until runs had names, all
of a profile shared `runs/<domain>/<profile>/`: `move_old` puts what is there into a folder of its own.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common.config.names import is_name
from common.config.resolve import Resolved
from common.store.artifacts import Artifact, Store, read_artifact, writing
from common.store.manifest import RESULT, read_mapping
from common.system.files import read_bytes

PLAN, SUMMARY, BENCHMARKS = "plan.json", "summary.json", "benchmarks.json"
MOVING = ".moving-"  # begins the name of a folder that an old run is being moved into
TEMPORARY = re.compile(r"\..+\.\d+")  # .<name>.<process>: replaces <name> in one step
UNKNOWN = "earlier"  # name of an old run that does not say its pipeline


@dataclass(frozen=True)
class RunFolder:
    """One run's folder; it need not be there. Without a name it is one of the old place."""

    runs: Path
    domain: str
    profile: str
    name: str

    @property
    def path(self) -> Path:
        return self.runs / self.domain / self.profile / self.name

    @property
    def plan(self) -> Path:
        return self.path / PLAN

    @property
    def summary(self) -> Path:
        return self.path / SUMMARY

    @property
    def label(self) -> str:
        """What people and other runs know it by, beside its domain."""
        return f"{self.profile}/{self.name}" if self.name else self.profile

    def rerun(self, stage: str) -> str:
        """Return the command that makes a stage of this run again, with the settings that it was planned with."""
        root, plan = self.runs.parent, read_mapping(self.plan)
        several = plan.get("members")  # of a sequence, by domain
        domain = f"domain={plan.get('domain_folder') or self.domain}"
        if isinstance(several, dict):
            folders = {name: each.get("domain_folder") or name for name, each in several.items()}
            domain = f"domains={','.join(folders.values())}"
        words = [domain, *([f"profile={self.profile}"] if self.profile else []), f"stage={stage}"]
        words += [f"name={self.name}"] if self.name else []
        words += [f"out={root}"] if root != Path.cwd() else []
        return f"just rerun {shlex.join(words)}"

    @property
    def pipeline(self) -> str | None:
        """The pipeline of what was planned or finished here last; None where nothing says it."""
        plan = read_mapping(self.plan).get("pipeline")
        name = plan.get("name") if isinstance(plan, dict) else read_mapping(self.summary).get("pipeline")
        return name if is_name(name) else None

    def link(self, stage: str, artifact: Artifact) -> None:
        """Point `<stage>` at an artifact, replacing the link in one step."""
        link, target = self.path / stage, os.path.relpath(artifact.path, self.path)
        if link.is_symlink() and os.readlink(link) == target:
            return
        with writing(self.runs):
            self.path.mkdir(parents=True, exist_ok=True)
            point(link, target)

    def linked(self, stage: str) -> Artifact | None:
        """Return the result that a link leads to, if it is whole; before the first run, that of the old place."""
        if self.name and not self.path.exists():
            return RunFolder(self.runs, self.domain, self.profile, "").linked(stage)
        link = self.path / stage
        return read_artifact(link.resolve()) if link.is_symlink() else None


def point(link: Path, target: str) -> None:
    """Let a link lead to a target, in one step."""
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    os.replace(fresh, link)


def run_of(resolved: Resolved) -> RunFolder:
    """Return the folder of a run."""
    config = resolved.config
    domain = resolved.part_of or config.domain
    return RunFolder(Store(resolved.out).runs, domain, config.profile, resolved.run_name)


def runs_in(store: Store, domain: str) -> list[RunFolder]:
    """Return the runs of a domain that have a plan or a summary, those of the old place included."""
    files = (path for depth in ("*", "*/*") for path in (store.runs / domain).glob(f"{depth}/*.json"))
    folders = {path.parent for path in files if path.name in (PLAN, SUMMARY)}
    found = []
    for folder in sorted(folders):
        profile, *name = folder.relative_to(store.runs / domain).parts
        if not leads_to_result(folder) and all(map(is_name, (profile, *name))):
            found.append(RunFolder(store.runs, domain, profile, "".join(name)))
    return found


def list_runs(store: Store, domain: str) -> str:
    """Return a sentence with the runs of a domain, for a message about one that is missing."""
    labels = [folder.label for folder in runs_in(store, domain)]
    if not labels:
        return f"There is no run of {domain} in {store.runs}."
    return f"There is {', '.join(labels)} (profile/name)."


def list_links(store: Store) -> dict[str, str]:
    """Return, by the name of a result, the command that makes it again in a run that refers to it."""
    found = {}
    for link in links_of_runs(store):
        domain, profile, *name, stage = parts = link.relative_to(store.runs).parts
        if all(map(is_name, parts)):
            run = RunFolder(store.runs, domain, profile, "".join(name))
            found[Path(os.readlink(link)).name] = run.rerun(stage)
    return found


def links_of_runs(store: Store) -> list[Path]:
    """Return the links of all runs, but for those that a killed process was about to put in the place of another."""
    links = (path for depth in ("*/*/*", "*/*/*/*") for path in store.runs.glob(depth) if leads_to_result(path))
    return [link for link in links if not TEMPORARY.fullmatch(link.name)]


def temporary_files(store: Store) -> list[Path]:
    """Return what a process was about to put in the place of a link, of a file of a run, or of `latest`."""
    found = [path for path in sorted(store.runs.glob("*/*/*/.*")) if leads_to_result(path)]
    for name in (PLAN, SUMMARY, BENCHMARKS):
        found += [path for path in store.runs.glob(f"*/*/*/.{name}.*") if path.is_file() and not path.is_symlink()]
    found += [path for path in store.models.glob("*/.latest.*") if path.is_symlink()]
    return [path for path in found if TEMPORARY.fullmatch(path.name)]


def move_old(store: Store, domain: str, profile: str) -> RunFolder | None:
    """Move a run of the old place into a folder of its own, and return that; None where there is no such run.

    The new folder appears whole, in one step; only then the old links and files go. After a kill the next call
    finishes it. What is no link to a result, nor a plan or a summary, stays. Call it under the store's guard.
    """
    old = RunFolder(store.runs, domain, profile, "")
    found = sorted(old.path.iterdir()) if old.path.is_dir() else []
    links = {path.name: Path(os.readlink(path)).name for path in found if leads_to_result(path)}
    files = [path for path in (old.plan, old.summary) if path.is_file() and not path.is_symlink()]
    if not links and not files:
        return None
    with writing(store.runs):
        for left in old.path.glob(f"{MOVING}*"):
            shutil.rmtree(left, ignore_errors=True)
        name = old.pipeline or UNKNOWN
        new = next(each for each in _free(old, name) if _holds(each, links, files) or not os.path.lexists(each.path))
        if not new.path.is_dir():
            fresh = old.path / f"{MOVING}{os.getpid()}"
            fresh.mkdir()
            for stage, result in links.items():
                (fresh / stage).symlink_to(os.path.relpath(store.artifacts / result, new.path))
            for path in files:
                shutil.copy2(path, fresh / path.name)
            fresh.rename(new.path)
        for path in (*(old.path / stage for stage in links), *files):
            path.unlink(missing_ok=True)
    return new


def leads_to_result(path: Path) -> bool:
    """Whether a path is a link to a result of a store."""
    return path.is_symlink() and RESULT.fullmatch(Path(os.readlink(path)).name) is not None


def _free(old: RunFolder, name: str) -> Iterator[RunFolder]:
    names = (name, *(f"{name}-{UNKNOWN}{number or ''}" for number in itertools.islice(itertools.count(), 1000)))
    return (RunFolder(old.runs, old.domain, old.profile, each) for each in names)


def _holds(folder: RunFolder, links: dict[str, str], files: Iterable[Path]) -> bool:
    """Whether a run's folder has all of this already, as after a kill between the two steps of a move."""
    if folder.path.is_symlink() or not folder.path.is_dir():
        return False
    same = all(
        (folder.path / stage).is_symlink() and Path(os.readlink(folder.path / stage)).name == result
        for stage, result in links.items()
    )
    copied = ((path, folder.path / path.name) for path in files)
    return same and all(copy.is_file() and read_bytes(copy) == read_bytes(path) for path, copy in copied)
