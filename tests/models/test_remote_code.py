"""A checkpoint's code runs where it is trusted and allowed, from a private copy, and nothing of it runs otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from common.config.schema import ModelSettings
from common.errors import ConfigError, DataError
from common.models import checkpoint
from common.models.clean_load import inspect
from common.models.remote_code import code_of, loadable
from common.system import outside_code
from common.system.outside_code import allow

MODELING = """
import os
from transformers import LlamaConfig, LlamaForCausalLM
from .part import RAN

with open(os.environ["RAN"], "a") as stream:
    stream.write(f"{RAN} {__file__}\\n")


class MineConfig(LlamaConfig):
    model_type = "mine"


class Mine(LlamaForCausalLM):
    config_class = MineConfig
"""
CONFIG = {
    "model_type": "mine", "architectures": ["Mine"], "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 8,
    "auto_map": {"AutoConfig": "modeling.MineConfig", "AutoModelForCausalLM": "modeling.Mine"},
}  # fmt: skip


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(outside_code, "_allowed", set())
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    return tmp_path / "ran"


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A checkpoint whose model and configuration are its own code."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "modeling.py").write_text(MODELING, encoding="utf-8")
    (folder / "part.py").write_text("RAN = 'first'\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    sizes = {key: value for key, value in CONFIG.items() if key.endswith(("size", "layers", "heads", "embeddings"))}
    torch.manual_seed(0)
    weights = LlamaForCausalLM(LlamaConfig(**sizes)).state_dict()
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def trusting(folder: Path, trust: bool = True) -> ModelSettings:
    return ModelSettings(path=str(folder), trust_remote_code=trust)


def test_code_that_nobody_allowed_does_not_run(given: Path, ran: Path) -> None:
    loads: list[Callable[[], object]] = [
        lambda: checkpoint.load_model(given, trusting(given)),
        lambda: checkpoint.load_tokenizer(given, trusting(given)),
        lambda: checkpoint.load_skeleton(given, trusting(given)),
        lambda: inspect(str(given), [1], "", True),
    ]
    for load in loads:
        with pytest.raises(ConfigError, match=r"given: this run may not execute modeling\.py, part\.py"):
            load()
    with pytest.raises(DataError, match="cannot be loaded"):
        checkpoint.load_model(given, trusting(given, False))
    assert not ran.exists()


def test_allowed_code_runs_from_a_copy_and_goes_on_with_the_result(given: Path, ran: Path, tmp_path: Path) -> None:
    allow(code_of(given))
    model = checkpoint.load_model(given, trusting(given))
    said, place = ran.read_text("utf-8").splitlines()[0].split()
    assert said == "first"
    assert "allowed-code-" in place  # neither the checkpoint's folder nor a cache that others share
    model.save_pretrained(tmp_path / "result")
    for name in ("modeling.py", "part.py"):
        assert (tmp_path / "result" / name).read_bytes() == (given / name).read_bytes()
    assert "allowed-code-" not in (tmp_path / "result" / "config.json").read_text("utf-8")
    checkpoint.load_model(tmp_path / "result", trusting(given))
    (tmp_path / "result" / "part.py").write_text("RAN = 'edited'\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"result: this run may not execute part\.py"):
        checkpoint.load_model(tmp_path / "result", trusting(given))
    assert "edited" not in ran.read_text("utf-8")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_code_of_another_repository_is_refused(name: str, given: Path, ran: Path) -> None:
    allow(code_of(given))
    (given / name).write_text(
        json.dumps({**CONFIG, "auto_map": {"AutoX": ["someone/else--modeling.X", None]}}), "utf-8"
    )
    for use in (code_of, lambda folder: loadable(folder, True)):
        with pytest.raises(
            DataError, match=rf"{name}: auto_map names code of another repository, which would be fetched"
        ):
            use(given)


def test_what_needs_no_trust_stays_where_it_is(given: Path) -> None:
    assert loadable(given, False) == given
    assert code_of(given / "model.gguf") == {}


def test_a_link_is_read_as_what_it_leads_to(given: Path, ran: Path, tmp_path: Path) -> None:
    """The Hub's cache is made of links; what they lead to is compared, and cannot be exchanged behind them."""
    shutil.move(given / "part.py", tmp_path / "blob")
    (given / "part.py").symlink_to(tmp_path / "blob")
    allow(code_of(given))
    folder = loadable(given, True)
    assert not (folder / "part.py").is_symlink()
    assert (folder / "model.safetensors").resolve() == given / "model.safetensors"
    (tmp_path / "blob").write_text("RAN = 'edited'\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"may not execute part\.py"):
        loadable(given, True)
