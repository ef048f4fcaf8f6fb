"""A base of a few steps that short trainings with methods start from, and such trainings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.config.resolve import resolve
from common.config.schema import Config
from common.console import Console
from common.engine.frozen_plan import freeze
from common.engine.run import run_stage
from common.models.tokenizer import train_tokenizer
from common.stages.base import add_tokens
from common.store.artifacts import Artifact
from tests.conftest import QUICK, REPOSITORY, made_once

WORDS = {
    **QUICK, "domain": "medical", "precision": "float32", "run.threads": "1", "base.tokens": "8192",
    "cpt.tokens": "8192", "cpt.batch_tokens": "1024", "cpt.sequence_length": "128",
}  # fmt: skip
Train = Callable[..., Artifact]


@pytest.fixture(scope="session")
def based(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a base; tests must not change it."""

    def make(root: Path) -> None:
        run_stage(resolve({**WORDS, "out": str(root)}, REPOSITORY), "base", Console("quiet"))

    return made_once(tmp_path_factory, "based", make)


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


@pytest.fixture(scope="session")
def config() -> Config:
    return resolve({"domain": "medical"}, REPOSITORY).config


@pytest.fixture(scope="session")
def tokenizer(config: Config) -> Any:
    """A small tokenizer with two control tokens."""
    made = train_tokenizer(["nice bad word number and more words plain words"] * 20, 300, 256)
    add_tokens(made, config.model.model_copy(update={"control_tokens": ("<|good|>", "<|bad|>")}))
    return made


@pytest.fixture
def model(tokenizer: Any) -> Any:
    """A model of one layer for that tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    ))  # fmt: skip
