"""What a result has read, and everything that the stages before it had read: kept in its manifest.

Usage: `entries = lineage_of(artifact)`; `read = tokens_read(entries)`.

An entry is one stage: {"stage", "kind", "domain", "fingerprint", "sources", "read", "tokenizer"}. `sources` are what it
read of each source, in tokens and with passes counted. `read` are the shared results that hold its rows as tokens, with
how many of their tokens it read: what is replayed of the lineage is drawn from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.errors import DataError
from common.store.artifacts import Artifact

KEY = "lineage"  # in a manifest
SHARED_ROLES = ("pretrain", "replay")  # of text that belongs to no domain
Entry = dict[str, Any]


def entry_of(
    manifest: Mapping[str, Any], read: Mapping[str, int], domain: str, tokenizer: str | None = None
) -> Entry | None:  # fmt: skip
    """Return what one stage has read by its manifest; None for a stage that read no rows."""
    sources = [
        {"id": str(row["source"]), "role": str(row["role"]), "tokens": round(row["tokens"] * (row["epochs"] or 1))}
        for row in manifest.get("rows", ())
        if row.get("rows_out")
    ]
    if not sources:
        return None
    owned = any(source["role"] not in SHARED_ROLES for source in sources)
    return {
        "stage": manifest["stage"], "kind": manifest["kind"], "domain": domain if owned else "",
        "fingerprint": manifest["fingerprint"], "sources": sources, "read": dict(read), "tokenizer": tokenizer,
    }  # fmt: skip


def lineage_of(artifact: Artifact) -> list[Entry]:
    """Return what a result and the stages before it have read, the first stage first.

    Of a result from before lineages were kept, its own sources alone are known, and not where their tokens are.
    """
    known = artifact.manifest.get(KEY)
    if known is None:
        entry = entry_of(artifact.manifest, {}, "")
        return [] if entry is None else [entry]
    return [dict(entry) for entry in known]


def joined(artifacts: Iterable[Artifact]) -> list[Entry]:
    """Return what several results and the stages before them have read, each stage once."""
    entries = {entry["fingerprint"]: entry for artifact in artifacts for entry in lineage_of(artifact)}
    return list(entries.values())


def identity_of(entries: Sequence[Entry]) -> dict[str, int]:
    """Return what decides the rows that are drawn from a lineage: its stages, and how many tokens each has read.

    Not the names of the shared results: these change with the code that makes tokens.
    """
    return {str(entry["fingerprint"]): sum(map(int, entry["read"].values())) for entry in entries}


def require_drawable(parent: Artifact, stage: str) -> None:
    """Check that all that was read before a stage is kept as tokens of its model's tokenizer. Raises DataError."""
    now = parent.manifest.get("files", {}).get("tokenizer.json", {}).get("sha256")
    for entry in lineage_of(parent):
        if not entry["read"]:
            raise DataError(
                f"{stage}.replay_from=lineage needs the rows that stage {entry['stage']} has read, and its result does "
                f"not say where they are. Make it again with `just rerun … stage={entry['stage']}`, or set "
                f"{stage}.replay_from=role."
            )
        if now and entry["tokenizer"] and entry["tokenizer"] != now:
            raise DataError(
                f"{stage}.replay_from=lineage draws tokens that stage {entry['stage']} has read, and the tokenizer has "
                f"changed since. Set {stage}.replay_from=role."
            )


def tokens_read(entries: Sequence[Entry]) -> dict[str, int]:
    """Return the shared results that hold all that was read, with the tokens that were read of each."""
    found: dict[str, int] = {}
    for entry in entries:
        for name, number in entry["read"].items():
            found[name] = found.get(name, 0) + int(number)
    return found
