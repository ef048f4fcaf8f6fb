"""A base of a few steps that short trainings with methods start from, and such trainings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.config.resolve import resolve
from common.console import Console
from common.engine.frozen_plan import freeze
from common.engine.run import run_stage
from common.store.artifacts import Artifact
from tests.conftest import QUICK, REPOSITORY

WORDS = {
    **QUICK, "domain": "medical", "precision": "float32", "run.threads": "1", "base.tokens": "8192",
    "cpt.tokens": "8192", "cpt.batch_tokens": "1024", "cpt.sequence_length": "128",
}  # fmt: skip
Train = Callable[..., Artifact]


@pytest.fixture(scope="session")
def based(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a base; tests must not change it."""
    root = tmp_path_factory.mktemp("based")
    run_stage(resolve({**WORDS, "out": str(root)}, REPOSITORY), "base", Console("quiet"))
    return root


@pytest.fixture
def train(based: Path, tmp_path: Path) -> Train:
    """Return what trains CPT for eight steps in a private store, with further words."""
    root = tmp_path / "store"
    shutil.copytree(based, root, symlinks=True)

    def run(**words: Any) -> Artifact:
        resolved = resolve({**WORDS, "out": str(root), **{key: str(value) for key, value in words.items()}}, REPOSITORY)
        if resolved.config.run.processes > 1:
            freeze(resolved)
        return run_stage(resolved, "cpt", Console("quiet"))

    return run


def log(artifact: Artifact) -> list[dict[str, Any]]:
    """Return the log of a training."""
    return [json.loads(line) for line in (artifact.path / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def weights(artifact: Artifact) -> str:
    """Return the digest of what was trained."""
    return str(artifact.manifest["files"]["model.safetensors"]["sha256"])
