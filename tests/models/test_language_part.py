"""The language model within a checkpoint that reads images or sound too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoTokenizer

from common.config.schema import ModelSettings
from common.errors import DataError
from common.models import checkpoint
from common.models.language_part import note_part, part_of
from common.models.local import config_of
from tests.bench.architectures import PLAIN, small
from tests.end_to_end.test_families import make_tokenizer


def publish(name: str, folder: Path) -> Path:
    """Save a whole model of a kind as it is published, with a tokenizer of its language model's kind."""
    tokenizer = make_tokenizer(PLAIN)
    model = small(name, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder, config=part_of(model.config)).save_pretrained(folder)
    return folder


def settings(folder: Path) -> ModelSettings:
    return ModelSettings(path=str(folder))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gemma3", "gemma3_text"),
        ("mistral3", "mistral"),
        ("llava", "llama"),
        ("smolvlm", "llama"),
        ("qwen2_vl", "qwen2"),
        ("qwen2_5_vl", "qwen2"),
        ("qwen3_vl", "qwen3"),
        ("qwen3_vl_moe", "qwen3_moe"),
        ("qwen3_5", "qwen3_5_text"),
        ("gemma4", "gemma4_text"),
    ],
)
def test_it_reads_text_as_the_whole_does(name: str, kind: str, tmp_path: Path) -> None:
    """Logits are equal, no weight of it is missing, and it is saved under names of its own."""
    folder = publish(name, tmp_path / "whole")
    part = checkpoint.load_model(folder, settings(folder)).eval()
    whole: Any = AutoModelForMultimodalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        torch.testing.assert_close(part(input_ids=ids).logits, whole(input_ids=ids).logits)
    assert part.config.model_type == kind
    assert part.num_parameters() < whole.num_parameters()
    assert (note := note_part(folder, part))
    assert f"of {name}, which reads more than text" in note[0]

    part.save_pretrained(tmp_path / "saved")
    again = checkpoint.load_model(tmp_path / "saved", settings(folder))
    assert all(map(torch.equal, part.state_dict().values(), again.state_dict().values()))
    with safe_open(tmp_path / "saved" / "model.safetensors", "pt") as stored:
        assert all(key.startswith(("model.", "lm_head.")) for key in stored.keys())  # noqa: SIM118, which has no others
    assert note_part(tmp_path / "saved", again) == []
    skeleton = checkpoint.load_skeleton(folder, settings(folder))
    assert skeleton.state_dict().keys() == part.state_dict().keys()


def test_a_plan_knows_its_sizes_and_counts_its_weights_alone(tmp_path: Path) -> None:
    """Also those that its config.json leaves out, as Gemma 3's do."""
    folder = publish("gemma3", tmp_path)
    known, part = config_of(folder), checkpoint.load_skeleton(folder, settings(folder))
    assert (known["hidden_size"], known["model_type"]) == (part.config.hidden_size, "gemma3_text")
    assert known["parameters"] == part.num_parameters()


def test_stops_and_tied_weights_are_what_the_whole_says() -> None:
    config = AutoConfig.for_model("llava", eos_token_id=[1, 7], tie_word_embeddings=True)
    part = part_of(config)
    assert part is not None
    assert (part.eos_token_id, part.tie_word_embeddings) == ([1, 7], True)
    assert config.text_config.tie_word_embeddings is False
    assert part_of(AutoConfig.for_model("llama")) is None


def test_packed_weights_are_not_taken_for_numbers(tmp_path: Path) -> None:
    """As of Ministral 3, whose scales stand in tensors of their own."""
    folder = publish("mistral3", tmp_path)
    settings_file = folder / "config.json"
    packed = {**json.loads(settings_file.read_text()), "quantization_config": {"quant_method": "fp8"}}
    settings_file.write_text(json.dumps(packed))
    with pytest.raises(DataError, match="cannot be loaded: .*FP8"):
        checkpoint.load_model(folder, settings(folder))


def test_a_part_that_is_no_language_model_of_its_own_is_refused(tmp_path: Path) -> None:
    AutoConfig.for_model("mllama").save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"config\.json: model_type mllama_text_model is nothing that .* builds"):
        checkpoint.load_skeleton(tmp_path, settings(tmp_path))


def test_a_tokenizer_that_would_cut_otherwise_beside_it_is_refused(tmp_path: Path) -> None:
    """Its file has other rules than those of Qwen, which are taken for that kind of model whatever the file says."""
    AutoConfig.for_model("qwen2_vl").save_pretrained(tmp_path)
    make_tokenizer(PLAIN).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="as Qwen2Tokenizer beside its language model, which cuts texts otherwise"):
        checkpoint.load_tokenizer(tmp_path, settings(tmp_path))
