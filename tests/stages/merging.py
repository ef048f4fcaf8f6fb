"""Tiny checkpoints of three stages, and merges of them.

Usage: `tensors = merge(tmp_path, checkpoints, method="linear", models=WEIGHTED)`.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest

from common.config.schema import Config
from common.config.stages import MergeSettings
from common.console import Console
from common.stage import StageContext
from common.stages.merge import run
from common.store.artifacts import Artifact, fingerprint_of

STAGES = ("base", "sft", "dpo")
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
WEIGHTED = {"sft": {"weight": 0.5}, "dpo": {"weight": 1.0}}
THINNED = {"sft": {"weight": 0.5, "density": 0.6}, "dpo": {"weight": 1.0, "density": 0.5}}
RECIPES: dict[str, dict[str, Any]] = {
    "linear": {"models": WEIGHTED},
    "slerp": {"base": "base", "models": {"dpo": {}}, "parameters": {"t": [{"filter": "mlp", "value": [0, 1]},
                                                                          {"value": 0.5}]}},
    "ties": {"base": "base", "models": THINNED, "parameters": {"int8_mask": True, "normalize": False}},
    "dare_ties": {"base": "base", "models": THINNED},
    "della": {"base": "base", "models": THINNED, "parameters": {"epsilon": 0.2, "lambda": 0.9}},
    "task_arithmetic": {"base": "base", "models": WEIGHTED},
    "model_stock": {"base": "base", "models": {"sft": {}, "dpo": {}}, "parameters": {"filter_wise": True}},
    "passthrough": {"slices": [{"sources": [{"model": "dpo", "layer_range": [0, 2]}]},
                               {"sources": [{"model": "sft", "layer_range": [1, 2], "parameters": {"scale": 0.5}}]}]},
}  # fmt: skip


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three tiny tied Llamas; the folder's name has the characters that mergekit parses in a path given as text."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("chain+a@b c")
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(62)} | {"<end>": 62, "<unk>": 63}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"eos_token": "<end>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=True, eos_token_id=62, bos_token_id=None, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    for number, name in enumerate(STAGES):
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.add_(torch.randn_like(tensor) * 0.02)
        tokenizer.chat_template = TEMPLATE if name != "base" else None
        stop: Any = GenerationConfig(eos_token_id=[62, number], pad_token_id=62)
        model.generation_config = stop
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {name: root / name for name in STAGES}


def make_context(root: Path, folders: dict[str, Path], settings: MergeSettings, parent: str = "dpo",
                 seed: int = 3) -> StageContext:  # fmt: skip
    config = Config.model_validate(
        {"domain": "d", "profile": "p", "pipeline": "q", "seed": seed, "model": {"path": "x"}, "stages": {}}
    )
    inputs = {
        name: Artifact(path, {"stage": name, "fingerprint": fingerprint_of({"stage": name}), "digest": name})
        for name, path in folders.items()
    }
    out, work = root / "out", root / "work"
    for folder in (out, work):
        folder.mkdir(parents=True)
    return StageContext(
        stage="merge", kind="merge", settings=settings, config=config, inputs=inputs, parent=parent,
        corpus=None, out=out, work=work, models=root, console=Console(stream=io.StringIO()),  # type: ignore[arg-type] # no data
    )  # fmt: skip


def merge(root: Path, folders: dict[str, Path], parent: str = "dpo", seed: int = 3, **keys: Any) -> dict[str, Any]:
    """Merge and return the tensors."""
    from safetensors.torch import load_file

    context = make_context(root, folders, MergeSettings.model_validate(keys), parent, seed)
    run(context)
    return dict(load_file(context.out / "model.safetensors"))


def change(checkpoints: dict[str, Path], root: Path, name: str) -> dict[str, Path]:
    """Copy one checkpoint so that a test may damage it."""
    shutil.copytree(checkpoints[name], root / name)
    return {**checkpoints, name: root / name}
