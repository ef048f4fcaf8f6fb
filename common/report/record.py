"""The whole chain as one machine-readable record, `card.json`.

Usage: `write_json(out / "card.json", build_record(chain, comparisons, context_facts))`.

Only the fields named here are copied from manifests, so that a field added later, such as a path, does not leak.
It is a record, not a recipe: the settings in it cannot be run as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.report.chain import Chain
from common.report.comparisons import Comparison
from common.report.sections import merged_sources

SCHEMA = 1
MANIFEST_FIELDS = (
    "stage",
    "kind",
    "fingerprint",
    "parent",
    "inputs",
    "digest",
    "recipe",
    "settings",
    "metrics",
    "tokens",
    "seconds",
    "train_seconds",
    "tokens_per_second",
    "rows",
    "versions",
    "git",
    "seed",
    "created",
    "code",
    "files",
)
HARDWARE_FIELDS = ("cpu", "cores", "memory_gb", "gpu")
EXAM_FIELDS = ("exam", "bits_per_byte", "tasks", "extra")


def build_record(chain: Chain, comparisons: Sequence[Comparison], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record; `facts` are those of the run (domain, profile, pipeline, licence, …) and come first."""
    return {
        "schema": SCHEMA,
        **facts,
        "published": chain.published,
        "stages": {name: _stage(manifest) for name, manifest in chain.manifests.items()},
        "exams": {c.name: {key: c.exam.get(key) for key in EXAM_FIELDS} for c in chain.checkpoints if c.exam},
        "comparisons": [comparison.record() for comparison in comparisons],
        "sources": merged_sources(chain),
    }


def _stage(manifest: Mapping[str, Any]) -> dict[str, Any]:
    hardware = manifest.get("hardware") or {}
    return {
        **{key: manifest.get(key) for key in MANIFEST_FIELDS},
        "hardware": {key: hardware.get(key) for key in HARDWARE_FIELDS},
    }
