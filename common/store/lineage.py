"""What a result has read, and everything that the stages before it had read: kept in its manifest.

Usage: `entries = lineage_today(artifact, store)`; `read = tokens_read(entries)`.

An entry is one stage: {"stage", "kind", "domain", "fingerprint", "sources", "read", "tokenizer"}. `sources` are what it
read of each source, in tokens and with passes counted. `read` are the shared results that hold its rows as tokens, with
how many of their tokens it read: what is replayed of the lineage is drawn from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from common.errors import DataError
from common.store.artifacts import Artifact, Store, read_artifact
from common.store.manifest import LINEAGE, name_in, read_manifest

KEY = LINEAGE  # in a manifest
SHARED_ROLES = ("pretrain", "replay")  # of text that belongs to no domain
Entry = dict[str, Any]


def entry_of(
    manifest: Mapping[str, Any], read: Mapping[str, int], domain: str, tokenizer: str | None = None
) -> Entry | None:  # fmt: skip
    """Return what one stage has read by its manifest; None for a stage that read no rows.

    Where rows are kept as tokens (`read`) their passes are known, and a source without any was not read: a mixture may
    leave one out. Passes over other rows may not be known, and count as one.
    """
    passes = [(row, row["epochs"] if read else row["epochs"] or 1) for row in manifest.get("rows", ())]
    sources = [
        {"id": str(row["source"]), "role": str(row["role"]), "tokens": round(row["tokens"] * times)}
        for row, times in passes
        if row.get("rows_out") and times
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


def lineage_today(artifact: Artifact, store: Store) -> list[Entry]:
    """Return the same, with where the rows of each stage are now, if it was made again since."""
    return [_today(entry, store) for entry in lineage_of(artifact)]


def _today(entry: Entry, store: Store) -> Entry:
    folder = store.artifacts / name_in(entry)
    manifest = read_manifest(folder)
    known = [] if manifest is None else lineage_of(Artifact(folder, manifest))
    same = [each for each in known if each["fingerprint"] == entry["fingerprint"] and each["read"]]
    return same[-1] if same else entry


def joined(artifacts: Iterable[Artifact]) -> list[Entry]:
    """Return what several results and the stages before them have read, each stage once."""
    entries = {entry["fingerprint"]: entry for artifact in artifacts for entry in lineage_of(artifact)}
    return list(entries.values())


def identity_of(entries: Sequence[Entry]) -> dict[str, int]:
    """Return what decides the rows that are drawn from a lineage: its stages, and how many tokens each has read.

    Not the names of the shared results: these change with the code that makes tokens.
    """
    return {str(entry["fingerprint"]): sum(map(int, entry["read"].values())) for entry in entries}


def require_drawable(
    parent: Artifact, stage: str, store: Store, names: Mapping[str, str], rerun: Callable[[str], str]
) -> None:  # fmt: skip
    """Check that all that was read before a stage is in the store, as tokens of its model's tokenizer.

    `names` are those of the run's stages, by fingerprint, and `rerun` gives the command that makes one again.
    Raises DataError.
    """
    now = parent.manifest.get("files", {}).get("tokenizer.json", {}).get("sha256")
    for entry in lineage_today(parent, store):
        name = names.get(str(entry["fingerprint"]), str(entry["stage"]))
        role = f"set {stage}.replay_from=role"
        if not entry["read"]:
            raise DataError(
                f"{stage}.replay_from=lineage needs the rows that stage {name} has read, and its result names none "
                f"that are kept as tokens: {role}. Only a result from before they were kept has them once it is made "
                f"again, with `{rerun(name)}`."
            )
        if gone := [rows for rows in entry["read"] if read_artifact(store.artifacts / rows) is None]:
            raise DataError(
                f"{stage}.replay_from=lineage needs {gone[0]}, rows that stage {name} has read, and they are gone from "
                f"the store. Make them again with `{rerun(name)}`, or {role}."
            )
        if now and entry["tokenizer"] and entry["tokenizer"] != now:
            raise DataError(
                f"{stage}.replay_from=lineage draws tokens that stage {name} has read, and the tokenizer has changed "
                f"since: {role}."
            )


def tokens_read(entries: Sequence[Entry]) -> dict[str, int]:
    """Return the shared results that hold all that was read, with the tokens that were read of each."""
    found: dict[str, int] = {}
    for entry in entries:
        for name, number in entry["read"].items():
            found[name] = found.get(name, 0) + int(number)
    return found
