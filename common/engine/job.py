"""One stage that a run makes: what it is made from, and what its manifest says of it.

Usage: `job = Job(node, inputs, recipe, fingerprint, forced)`; `manifest_of(job, report, seconds, resolved, out)`.

Making it is `common.engine.run`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.kinds import kind_of
from common.config.node import Node
from common.config.resolve import Resolved
from common.console import Console
from common.engine.code import code_of, code_of_module
from common.engine.fingerprint import settings_made_with
from common.engine.preflight.domain_code import code_of_stage
from common.engine.provenance import provenance
from common.models.finite import require_finite
from common.stage import StageReport
from common.store.artifacts import Artifact, Store, digest_file
from common.store.leases import Lease
from common.store.lineage import KEY, entry_of, joined
from common.store.manifest import READS, read_mapping
from common.store.shared import SharedResults
from common.training.distributed import ranks


@dataclass(frozen=True)
class Job:
    """One stage that is to be there at the end: what it is made from, and the name of the result."""

    node: Node
    inputs: dict[str, Artifact]
    recipe: Mapping[str, Any]
    fingerprint: str
    forced: bool  # make it again even if it is there


def _numbers(value: Any, name: str = "metric") -> Iterator[tuple[str, Any]]:
    """Yield the floats in a mapping or list, at any depth, with their names."""
    if isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in items:
            yield from _numbers(inner, f"{name}.{key}")
    elif isinstance(value, float):
        yield name, value


def manifest_of(job: Job, report: StageReport, seconds: float, resolved: Resolved, out: Path) -> dict[str, Any]:
    """Return everything that is known of a stage's result in `out`; the store adds its files and digests.

    Raises ContractError for a figure that is no number.
    """
    node, trained = job.node, report.train_seconds
    require_finite(_numbers(report.metrics), f"Stage {node.name}", "Nothing is saved. Look at its log.")
    manifest = {
        "stage": node.stored,
        "kind": node.kind,
        "fingerprint": job.fingerprint,
        "recipe": job.recipe,
        "settings": settings_made_with(job.recipe),
        "inputs": {
            node.called(name): {"stage": artifact.stage, "fingerprint": artifact.fingerprint, "digest": artifact.digest}
            for name, artifact in job.inputs.items()
        },
        "parent": node.called_parent,
        "metrics": report.metrics,
        "tokens": report.tokens,
        "seconds": round(max(seconds, trained), 2),  # the latter counts earlier attempts too
        "train_seconds": round(trained, 2),
        "tokens_per_second": round(report.tokens / trained, 1) if trained else 0.0,
        **_rows_of(report.rows),
        "sources": report.sources,
        "processes": ranks.size(),
        "seed": resolved.config.seed,
        "code": code_of(node.kind, resolved.repository, resolved.config.stages[node.name]),
        **({"outside_code": used} if (used := code_of_stage(node, resolved)) else {}),
        **provenance(resolved.repository),
    }
    return manifest | _lineage(manifest, job, report, resolved, out)


def _lineage(
    manifest: Mapping[str, Any], job: Job, report: StageReport, resolved: Resolved, out: Path
) -> dict[str, Any]:  # fmt: skip
    """Return what a model has read, and the stages before it; nothing for a stage that makes none."""
    if not kind_of(job.node.kind).makes_model:
        return {}
    # A reward model that it reads has read rows that it has not; and a tokenizer is learned from text, no model is.
    kinds = {name: kind_of(str(artifact.manifest["kind"])) for name, artifact in job.inputs.items()}
    models = [artifact for name, artifact in job.inputs.items() if kinds[name].makes == "language model"]
    tokenizer = out / "tokenizer.json"
    digest = digest_file(tokenizer) if tokenizer.is_file() else None
    trained = not kind_of(job.node.kind).changes_tokenizer
    own = entry_of(manifest, report.read, resolved.config.domain, digest) if trained else None
    return {KEY: [*joined(models), *([own] if own else [])]}


def _rows_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the accounts of a stage, and apart from them what its rows repeated of the exam: that is not published."""
    overlaps = [
        {"source": row["source"], "role": row["role"], "texts": row["overlaps"]} for row in rows if row.get("overlaps")
    ]
    counts = [{name: value for name, value in row.items() if name != "overlaps"} for row in rows]
    return {"rows": counts, **({"exam_overlap": overlaps} if overlaps else {})}


def shared_by(resolved: Resolved, lease: Lease, work: Path, console: Console) -> SharedResults:
    """Return the results that a stage shares with others, as one that works in this scratch."""

    def code(module: str) -> str:
        return str(code_of_module(module, resolved.repository, reads_rows=True)["digest"])

    return SharedResults(
        Store(resolved.out), lease, work, code, resolved.config.run.wait, lambda line: console.line(f"  {line}")
    )


def reads_in(work: Path) -> dict[str, Any]:
    """Return what a stage's manifest says of the shared results that it has read; nothing where it read none."""
    reads = read_mapping(work / READS)
    return {"reads": reads} if reads else {}
