"""Write the pages on settings, blocks and forms, and the JSON schemas of YAML files: `python -m common.data.schemas`.

Usage: `for path, text in reference_files().items(): ...`.

Settings and layers are described by `common.config.reference`, blocks and forms by `common.config.pages`; here are a
domain's data and knowledge.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common.config.pages import blocks_page, forms_page
from common.config.reference import DRAFT, LAYER, LAYERS, schema_of, schemas, settings_page
from common.data.knowledge.collection import Collection
from common.data.knowledge.knowledge import Knowledge
from common.data.knowledge.problem_file import ProblemFile
from common.data.manifest.schema import Manifest

DOCS = Path(__file__).parents[2] / "docs"


def data_schema() -> dict[str, Any]:
    """Return the schema of `data.yaml` and other manifests; `where` takes single values as well as lists."""
    made = schema_of(Manifest, {"settings": LAYER, "profiles": LAYERS})
    value = {"type": ["string", "number", "boolean"]}
    made["$defs"]["Source"]["properties"]["where"]["additionalProperties"] = {
        "anyOf": [value, {"type": "array", "items": value}]
    }
    return made


def knowledge_schema() -> dict[str, Any]:
    """Return the schema of `knowledge.yaml`, of whatever kind."""
    kinds = [model.model_json_schema() for model in (Knowledge, ProblemFile, Collection)]
    definitions = {name: schema for kind in kinds for name, schema in kind.pop("$defs", {}).items()}
    return {"$schema": DRAFT, "title": "Embedded knowledge", "anyOf": kinds, "$defs": definitions}


def reference_files() -> dict[str, str]:
    """Return the text of every generated file by its path below `docs/`."""
    made = {**schemas(), "data": data_schema(), "knowledge": knowledge_schema()}
    texts = {f"schemas/{name}.json": json.dumps(schema, indent=1, ensure_ascii=False) for name, schema in made.items()}
    pages = {"settings.md": settings_page(), "blocks.md": blocks_page(), "forms.md": forms_page()}
    return {**pages, **{name: f"{text}\n" for name, text in texts.items()}}


if __name__ == "__main__":
    for name, text in reference_files().items():
        (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / name).write_text(text, encoding="utf-8")
