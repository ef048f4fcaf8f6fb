"""Published weights of 4 and 8 bits: read as the numbers that they stand for, and saved as plain ones."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from common.config.schema import ModelSettings
from common.errors import DataError
from common.models import checkpoint
from common.models.local import config_of
from common.models.packed import note_packed, packed_as, require_unpacked
from common.models.source import check_local
from tests.bench.architectures import PLAIN
from tests.end_to_end.test_families import make_tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 16,
    "num_key_value_heads": 2, "vocab_size": 600, "max_position_embeddings": 512, "pad_token_id": 1, "eos_token_id": 0,
}  # fmt: skip
BLOCK = 128  # rows and columns of FP8 that share a scale
FOUR_BITS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])  # E2M1; the fourth bit is the sign


def in_fp8(name: str, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return the tensors that stand for a matrix, and the numbers that they mean."""
    rows, columns = ([slice(at, at + BLOCK) for at in range(0, size, BLOCK)] for size in weight.shape)
    stored, meant = weight.to(torch.float8_e4m3fn), torch.empty_like(weight)
    scales = torch.tensor([[0.01 * (1 + i + 2 * k) for k in range(len(columns))] for i in range(len(rows))])
    for i, row in enumerate(rows):
        for k, column in enumerate(columns):
            stored[row, column] = (weight[row, column] / scales[i, k]).to(torch.float8_e4m3fn)
            meant[row, column] = stored[row, column].float() * scales[i, k]
    return {name: stored, name.replace(".weight", ".weight_scale_inv"): scales}, meant


def in_mxfp4(name: str, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return the same of experts (E, inputs, outputs): 32 inputs share a power of two."""
    experts, inputs, outputs = weight.shape
    blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
    scales = torch.randint(118, 122, (experts, outputs, inputs // 32), dtype=torch.uint8)
    halves = torch.stack([blocks & 15, blocks >> 4], -1).flatten(-2).long()
    numbers = FOUR_BITS[halves & 7] * (1 - 2 * (halves >> 3)) * torch.exp2(scales[..., None].float() - 127)
    meant = numbers.reshape(experts, outputs, inputs).transpose(1, 2)
    return {f"{name}_blocks": blocks, f"{name}_scales": scales}, meant


def publish(kind: str, folder: Path, **sizes: int) -> dict[str, Tensor]:
    """Save a small checkpoint as it is published in packed numbers; return what each weight means."""
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": ["full_attention"]}
    own = {**experts, "intermediate_size": 64} if kind == "mxfp4" else {}
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt_oss" if kind == "mxfp4" else "qwen3", **{**SIZES, **own, **sizes})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_tokenizer(PLAIN).save_pretrained(folder)
    packed: dict[str, Tensor] = {}
    meant: dict[str, Tensor] = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if kind == "mxfp4" and weight.dim() == 3:
            tensors, meant[name] = in_mxfp4(name, weight)
        elif kind == "fp8" and "proj" in name:
            tensors, meant[name] = in_fp8(name, weight)
        else:
            tensors, meant[name] = {name: weight.bfloat16()}, weight.bfloat16().float()
        packed |= tensors
    save_file(
        {name: tensor.contiguous() for name, tensor in packed.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    said = {"quant_method": kind, **({"weight_block_size": [BLOCK, BLOCK]} if kind == "fp8" else {})}
    put_quantization(folder, said)
    return meant


def put_quantization(folder: Path, said: dict[str, Any] | None) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": said}))


@pytest.mark.parametrize("kind", ["fp8", "mxfp4"])
def test_weights_are_the_numbers_that_they_stand_for(kind: str, tmp_path: Path) -> None:
    meant, settings = publish(kind, tmp_path), ModelSettings(path=str(tmp_path))
    check_local(settings)
    model = checkpoint.load_model(tmp_path, settings)
    found = model.state_dict()
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    for name, weight in meant.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=0)
    assert config_of(tmp_path)["parameters"] == model.num_parameters()
    assert note_packed(tmp_path) == [f"its weights were packed ({kind}) and are plain numbers from here on"]

    tokenizer = checkpoint.load_tokenizer(tmp_path, settings)
    checkpoint.save(model, tokenizer, tmp_path / "saved", "float32")
    assert packed_as(json.loads((tmp_path / "saved" / "config.json").read_text())) is None
    again = checkpoint.load_model(tmp_path / "saved", settings).state_dict()
    assert found.keys() == again.keys()
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_blocks_that_do_not_divide_a_matrix_are_refused(tmp_path: Path) -> None:
    """transformers would take 80 rows for each of two scales where the first one is of 128."""
    publish("fp8", tmp_path, intermediate_size=160)
    with pytest.raises(DataError, match=r"model\.layers\.0\.mlp\.\w+_proj\.weight is no multiple of the blocks"):
        check_local(ModelSettings(path=str(tmp_path)))


def rename(folder: Path, old: str, new: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    named = {name.replace(old, new): tensor for name, tensor in tensors.items() if new or old not in name}
    save_file(named, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("new", "said", "message"),
    [
        # The layout of AutoFP8: transformers 5.23 passes over such scales without a word.
        (
            "weight_scale",
            {"quant_method": "fp8"},
            r"no tensor model\.layers\.0\.\w+\.\w+_proj\.weight_scale_inv, without",
        ),
        ("", {"quant_method": "fp8"}, r"is stored in 8 bits \(F8_E4M3\), and there is no tensor"),
        ("weight_scale_inv", {}, r"config\.json has no quantization_config of fp8, without which transformers"),
    ],
)
def test_eight_bits_whose_scales_would_be_passed_over_are_refused(
    new: str, said: dict[str, Any], message: str, tmp_path: Path
) -> None:
    publish("fp8", tmp_path)
    rename(tmp_path, "weight_scale_inv", new)
    put_quantization(tmp_path, said or None)
    with pytest.raises(DataError, match=message):
        check_local(ModelSettings(path=str(tmp_path)))


def test_scales_that_nothing_applies_are_refused_once_the_model_is_loaded(tmp_path: Path) -> None:
    publish("fp8", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    plain = {name: tensor.to(torch.int8) if "proj" in name and "scale" not in name else tensor
             for name, tensor in tensors.items()}  # fmt: skip
    save_file(plain, tmp_path / "model.safetensors", {"format": "pt"})
    put_quantization(tmp_path, None)
    check_local(ModelSettings(path=str(tmp_path)))  # which reads no weights
    with pytest.raises(DataError, match=r"has scales of weights that its config\.json says nothing of, as model"):
        checkpoint.load_model(tmp_path, ModelSettings(path=str(tmp_path)))


@pytest.mark.parametrize("blocks", [128, [128], [128, 128, 128], "x", [128, 0]])
def test_blocks_are_two_sizes(blocks: object, tmp_path: Path) -> None:
    publish("fp8", tmp_path)
    put_quantization(tmp_path, {"quant_method": "fp8", "weight_block_size": blocks})
    with pytest.raises(DataError, match=r"quantization_config is .* and two sizes as `weight_block_size` if it has"):
        check_local(ModelSettings(path=str(tmp_path)))


def test_blocks_that_are_not_stated_are_those_of_transformers(tmp_path: Path) -> None:
    meant = publish("fp8", tmp_path)
    put_quantization(tmp_path, {"quant_method": "fp8"})
    check_local(ModelSettings(path=str(tmp_path)))
    found = checkpoint.load_model(tmp_path, ModelSettings(path=str(tmp_path))).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in meant.items())


@pytest.mark.parametrize("shape", [(0, 2), (2, 0)])
def test_scales_of_no_blocks_are_refused(shape: tuple[int, int], tmp_path: Path) -> None:
    publish("fp8", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    empty = {name: torch.empty(shape) if "scale" in name else tensor for name, tensor in tensors.items()}
    save_file(empty, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"is no multiple of the blocks"):
        check_local(ModelSettings(path=str(tmp_path)))


def test_what_cannot_be_unpacked_is_refused_before_the_first_stage(tmp_path: Path) -> None:
    publish("fp8", tmp_path)
    put_quantization(tmp_path, {"quant_method": "gptq", "bits": 4})
    with pytest.raises(DataError, match=r"config\.json: the weights are quantised \(gptq\).* packed as fp8 or mxfp4"):
        check_local(ModelSettings(path=str(tmp_path)))
    file = tmp_path / "config.json"
    found = json.loads(file.read_text())
    packing = {"quantization_config": found.pop("quantization_config")}
    file.write_text(
        json.dumps({**found, "model_type": "llava", "text_config": packing})
    )  # as of a language model within another
    with pytest.raises(DataError, match=r"the weights are quantised \(gptq\)"):
        check_local(ModelSettings(path=str(tmp_path)))


def test_what_code_of_a_checkpoint_leaves_packed_is_refused(tmp_path: Path) -> None:
    model: Any = SimpleNamespace(is_quantized=True)
    with pytest.raises(DataError, match=r"the weights are quantised \(SimpleNamespace\), which cannot be trained"):
        require_unpacked(model, tmp_path)
