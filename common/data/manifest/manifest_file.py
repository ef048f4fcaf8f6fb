"""Read a manifest's YAML into its typed form, and word what is wrong with its keys and values.

Usage: `manifest, sources, problems = parse_manifest(raw)`; `raise ConfigError(report(str(path), problems))`.

What the keys mean is `common.data.manifest.schema`; what is wrong with files is `common.data.manifest.manifest_checks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from common.config.validation import expected_of, value_of
from common.data.manifest.schema import Manifest, Source
from common.errors import did_you_mean

NO_LICENCE = "licence is empty; name it (such as cc-by-4.0), or write unknown"


def report(place: str, problems: Sequence[str]) -> str:
    """Return one line that says it all, or a heading and a line for each problem."""
    lines = [problem if problem.endswith("?") else f"{problem.rstrip('.')}." for problem in problems]
    if len(lines) == 1:
        return f"{place}: {lines[0]}"
    return "\n".join([f"{place}: {len(lines)} problems", *(f"  {line}" for line in lines)])


def parse_manifest(raw: Mapping[str, Any]) -> tuple[Manifest | None, list[Source], list[str]]:
    """Return the manifest (None when a key or value is wrong), the sources that are right, and the problems."""
    try:
        manifest = Manifest.model_validate(raw)
        return manifest, list(manifest.sources), []
    except ValidationError as error:
        # A value that fits none of several types gives one error per type: the first is enough.
        problems = list({_place(item["loc"]): _describe(dict(item), raw) for item in reversed(error.errors())}.values())
        problems.reverse()
    right = []
    entries = raw.get("sources")
    for entry in entries if isinstance(entries, list) else []:
        try:
            right.append(Source.model_validate(entry))
        except ValidationError:  # already among the problems, its licence perhaps not
            if isinstance(entry, dict) and not str(entry.get("licence") or "").strip():
                problems.append(f"source '{entry.get('id')}': {NO_LICENCE}")
    return None, right, problems


def _describe(item: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """Turn one of pydantic's errors into a line with the dotted key and the source's id."""
    place = _place(item["loc"])
    key = ".".join(str(part) for part in place)
    model: type[Manifest] | type[Source] = Manifest
    prefix = ""
    if len(place) > 1 and place[0] == "sources":
        model = Source
        entry = raw["sources"][int(place[1])]
        name = entry.get("id") if isinstance(entry, dict) else None
        prefix = f"source '{name}': " if name else ""
    if item["type"] == "extra_forbidden":
        return f"{prefix}unknown key {key}.{did_you_mean(str(place[-1]), model.model_fields)}".rstrip(".")
    if item["type"] == "missing":
        return f"{prefix}{key} is missing"
    if item["type"] == "value_error":
        return f"{prefix}{value_of(item)}" + ("" if prefix else f" ({key})")
    return f"{prefix}{key} is {item['input']!r}: {expected_of(item)}"


def _place(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Leave out the names of the types that pydantic tried, from the first on."""
    for number, part in enumerate(location):
        if part == "str" or str(part).startswith("tuple["):
            return location[:number]
    return location
