"""Results for tests of the store: a few bytes, committed as a stage's are."""

from __future__ import annotations

import os
import shutil
from typing import Any

from common.store.artifacts import Artifact, Store, fingerprint_of


def commit(
    store: Store, stage: str, text: str, *, inputs: dict[str, Artifact] | None = None, recipe: Any = None
) -> Artifact:
    """Commit a result that holds a text."""
    fingerprint = fingerprint_of({"stage": stage, "recipe": recipe or text})
    work, _ = store.begin(stage, fingerprint, "code")
    out = work / "out"
    out.mkdir()
    (out / "model.safetensors").write_text(text, encoding="utf-8")
    (out / "log.jsonl").write_text(os.urandom(4).hex(), encoding="utf-8")
    links = {n: {"stage": a.stage, "fingerprint": a.fingerprint} for n, a in (inputs or {}).items()}
    made = store.commit(stage, fingerprint, out, {"stage": stage, "fingerprint": fingerprint, "inputs": links})
    shutil.rmtree(work)
    return made
