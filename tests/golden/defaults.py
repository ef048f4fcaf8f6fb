"""The declared defaults of all settings that are identity: recipes leave them out, so none may change unnoticed.

Usage: `changed()` names the defaults that differ from the table; `python -m tests.golden` writes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from common.config.defaults import default_of, filled
from common.config.overrides import flatten
from common.config.schema import EmbeddedSettings, ModelSettings
from common.data.manifest.schema import Source
from common.engine.fingerprint import RECIPE_SCHEMA
from common.rewards.verifiers import VERIFIERS, options_of

FILE = Path(__file__).with_name("defaults.json")


def table() -> dict[str, Any]:
    """Return the schema of recipes, and key -> default: of classes, methods, forms, presets, trainers and rewards."""
    from common.config.forms import forms
    from common.config.kinds import kinds
    from common.config.methods import methods
    from common.config.mixture_presets import PRESETS

    classes: list[type[BaseModel]] = [
        *(kind.settings for kind in kinds().values()),
        ModelSettings,
        EmbeddedSettings,
        Source,
        *(method.settings for method in methods().values()),
        *(form.settings for form in forms().values()),
    ]
    for cls in classes:
        blocks = [type(default_of(field)) for field in cls.model_fields.values()]
        classes += [block for block in blocks if issubclass(block, BaseModel) and block not in classes]
    defaults = {f"{cls.__name__}.{key}": value for cls in classes for key, value in flatten(filled({}, cls)).items()}
    for kind in kinds().values():  # of its trainer, where the settings have none
        defaults |= {f"{kind.name}.train.{key}": value for key, value in kind.defaults.items()}
    defaults |= {f"preset.{name}.{part}": share for name, one in PRESETS.items() for part, share in one.shares.items()}
    for name in VERIFIERS:
        options = {key: field for key, field in options_of(name).model_fields.items() if not field.is_required()}
        defaults |= {f"{name}.{key}": field.default for key, field in options.items()}
    return {"schema": RECIPE_SCHEMA, "defaults": dict(sorted(defaults.items()))}


def checked_in() -> dict[str, Any]:
    """Return the table that is checked in."""
    read: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return read


def changed() -> list[str]:
    """Return the keys whose default is another than in the table, while the schema of recipes is the same."""
    before, now = checked_in(), table()
    if before["schema"] != now["schema"]:
        return []
    old, new = before["defaults"], now["defaults"]
    return [key for key in old if key in new and old[key] != new[key]]
