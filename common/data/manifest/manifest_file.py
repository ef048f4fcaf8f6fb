"""Read a manifest's YAML into its typed form, and word what is wrong with its keys and values.

Usage: `manifest, sources, problems = parse_manifest(raw)`.

What the keys mean is `common.data.manifest.schema`; what is wrong with files is `common.data.manifest.manifest_checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from common.config.validation import explain
from common.data.manifest.schema import Manifest, Source

NO_LICENCE = "licence is empty; name it (such as cc-by-4.0), or write unknown"


def parse_manifest(raw: Mapping[str, Any]) -> tuple[Manifest | None, list[Source], list[str]]:
    """Return the manifest (None when a key or value is wrong), the sources that are right, and the problems."""
    try:
        manifest = Manifest.model_validate(raw)
        return manifest, list(manifest.sources), []
    except ValidationError as error:
        problems = explain(error, Manifest, raw)
    right = []
    entries = raw.get("sources")
    for entry in entries if isinstance(entries, list) else []:
        try:
            right.append(Source.model_validate(entry))
        except ValidationError:  # already among the problems, its licence perhaps not
            if isinstance(entry, dict) and not str(entry.get("licence") or "").strip():
                problems.append(f"source '{entry.get('id')}': {NO_LICENCE}")
    return None, right, problems
