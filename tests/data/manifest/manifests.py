"""Small manifests, written and loaded: what the tests of manifests share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.data.manifest.manifest import ManifestCorpus, load_manifest
from common.errors import ConfigError, DataError

CPT = {"id": "texts", "role": "cpt", "path": "texts.jsonl", "licence": "mit"}
EXAM = {
    "id": "exam",
    "role": "eval",
    "side": "domain",
    "path": "exam.jsonl",
    "columns": {"question": "question", "answer": "answer"},
    "choices": ["yes", "no"],
    "licence": "mit",
}
HUB = {"id": "hub", "role": "sft", "hub": "o/n", "split": "train", "columns": {"messages": "m"}, "licence": "mit"}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def load(folder: Path, *sources: dict[str, Any], root: Path | None = None, **facts: Any) -> ManifestCorpus:
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"title": "T", "sources": list(sources)} | facts.pop("top", {})))
    return load_manifest(path, root, **facts)


def problems(folder: Path, *sources: dict[str, Any], **facts: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, *sources, **facts)
    return str(caught.value)


def mistakes(folder: Path, *sources: dict[str, Any], **facts: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, *sources, **facts)
    return str(caught.value)
