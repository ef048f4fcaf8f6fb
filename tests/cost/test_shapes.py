"""Shapes: parameters are those of the models that transformers builds, and what a forward pass saves is counted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from common.config.growth import ExpandSettings
from common.config.methods import LossBatch
from common.config.resolve import resolve
from common.config.schema import ModelFacts, ModelSettings
from common.config.stages import ContinuedSettings
from common.cost import activations
from common.cost.shapes import Shape, shape_of
from common.cost.workload import Work, work_of
from common.models.growth.growing import grow
from common.models.growth.pairs import learning_parts
from common.training.methods.losses.control_divergence import ControlDivergenceSettings, term
from common.training.speed.attention import register
from tests.conftest import REPOSITORY

TINY = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {**TINY, "tie_word_embeddings": True}),
    ("llama", {**TINY, "attention_bias": True, "mlp_bias": True}),
    ("qwen2", {**TINY, "tie_word_embeddings": True}),
    ("qwen2", TINY),
    ("qwen3", {**TINY, "head_dim": 24}),
    ("qwen3", {**TINY, "attention_bias": True}),
    ("mistral", TINY),
    # Qwen3-0.6B, Llama-3.1-8B, Qwen2.5-7B
    ("qwen3", {"vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
               "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True}),
    ("llama", {"vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
               "num_attention_heads": 32, "num_key_value_heads": 8}),
    ("qwen2", {"vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
               "num_attention_heads": 28, "num_key_value_heads": 4}),
]  # fmt: skip


def built(family: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """Return the configuration and the model on the meta device."""
    names = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "mistral": "Mistral"}
    config = getattr(transformers, f"{names[family]}Config")(**options)
    with torch.device("meta"):
        return config, getattr(transformers, f"{names[family]}ForCausalLM")(config)


@pytest.mark.parametrize(("family", "options"), CASES)
def test_parameters_are_those_of_the_model(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    config, model = built(family, options)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    shape = shape_of(ModelSettings(path=str(tmp_path)))
    assert shape is not None
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    heads = config.num_attention_heads, config.num_key_value_heads
    facts = ModelFacts(
        model_type=family, parameters=shape.parameters, vocab_size=config.vocab_size, hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size, num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=heads[0], num_key_value_heads=heads[1], head_dim=shape.head_size,
        tie_word_embeddings=config.tie_word_embeddings, max_position_embeddings=config.max_position_embeddings,
        licence="mit", chat_template="own",
    )  # fmt: skip
    told = shape_of(ModelSettings(path="owner/name", facts=facts))
    assert told is not None
    assert (told.parameters, told.forward_flops(9), told.cache_bytes(2)) == (
        shape.parameters, shape.forward_flops(9), shape.cache_bytes(2),
    )  # fmt: skip


def test_the_profile_s_own_architecture_is_counted() -> None:
    _, model = built("llama", {**TINY, "head_dim": None})
    architecture = {key: value for key, value in TINY.items() if key not in ("vocab_size", "head_dim")}
    shape = shape_of(ModelSettings(architecture=architecture, vocabulary_size=300))
    assert shape is not None
    assert shape.parameters == sum(p.numel() for p in model.parameters())


def test_of_unknown_models_nothing_is_said(tmp_path: Path) -> None:
    assert shape_of(ModelSettings(path="owner/name")) is None
    assert shape_of(ModelSettings(path=str(tmp_path))) is None
    for text in ('{"model_type": "gpt2"}', '{"model_type": "llama"}', "{", "[]", '"llama"'):
        (tmp_path / "config.json").write_text(text)
        assert shape_of(ModelSettings(path=str(tmp_path))) is None, text


def test_flops_and_keys_and_values_follow_the_formulas() -> None:
    shape = Shape("llama", 1000, 64, 128, 2, 4, 2, 16, True, 512)
    weights = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128) + 1000 * 64
    assert shape.forward_flops(100) == 2 * weights + 4 * 2 * 64 * 100
    assert shape.forward_flops(0, head=0) == 2 * (weights - 64_000)
    assert shape.cache_bytes(2) == 2 * 2 * 2 * 32
    assert shape.adapter_parameters(8) == 2 * 8 * (128 + 96 + 96 + 128 + 192 + 192 + 192)
    assert shape.adapter_parameters(8, ("q_proj",)) == 2 * 8 * 128


def work(length: int, rows: int, *, bf16: bool, peft: Any = "full") -> Work:
    return Work(
        kind="sft", rows=rows, length=length, accumulation=1, scored=rows * length, head="lean", certain=True,
        peft=peft, checkpointing=False, optimizer="adamw_torch", lora={"r": 8}, eight_bit=False,
        precision="bfloat16" if bf16 else "float32",
    )  # fmt: skip


@contextlib.contextmanager
def saving(model: Any) -> Iterator[dict[int, int]]:
    """Collect the bytes of what forward passes save for their backward pass, by place in memory."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}
    held: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)  # so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield saved


def test_what_pairs_save_is_counted_beside_the_layers_that_are_passed_back() -> None:
    """Of six layers the two lowest pass nothing back: the plain one, and that beside which the lowest copy stands."""
    ids = torch.randint(0, 300, (2, 32))
    found: list[int] = []
    for growth in (
        ExpandSettings(method="llama_pro", added=2),
        ExpandSettings(method="control_llm", added=2, interpolation="slerp"),
    ):
        config = transformers.LlamaConfig(**{**TINY, "num_hidden_layers": 4})
        grown = grow(transformers.LlamaForCausalLM(config), growth, "expand")
        model = grown.model.train().requires_grad_(False)
        layers = [] if growth.paired else [model.model.layers[place] for place in grown.added]
        for part in layers or learning_parts(model, trained=True):
            part.requires_grad_(True)
        with saving(model) as saved:
            outputs = model.model(input_ids=ids, use_cache=False)
            if growth.paired:
                batch = LossBatch(outputs.last_hidden_state, ids, None, outputs, model=model)
                outputs = term(batch, ControlDivergenceSettings(form="cosine"))
        found.append(sum(saved.values()))
    shape = Shape("llama", 300, 64, 176, 6, 4, 2, 16, False, 512)
    paired = replace(work(32, 2, bf16=False), only=grown.added, pairs=2)
    assert paired.passed(shape) == 4
    assert found[1] - found[0] == pytest.approx(64 * activations.pairs_bytes(shape, paired), rel=0.05)
    resolved = resolve({"domain": "medical", "pipeline": "control-llm"}, REPOSITORY)
    for stage, pairs in (("cpt-copies", 2), ("cpt", 0)):
        settings = resolved.config.stages[stage]
        assert isinstance(settings, ContinuedSettings)
        assert work_of("cpt", settings, resolved.config, grown.added).pairs == pairs


@pytest.mark.parametrize("attention", ["sdpa_float32", "documents_float32"])
@pytest.mark.parametrize(
    ("family", "bf16", "peft"),
    [("llama", True, "full"), ("llama", False, "full"), ("qwen3", True, "full"), ("qwen3", False, "full"),
     ("llama", True, "lora"), ("llama", False, "lora"),
     ("llama", True, "frozen"), ("llama", False, "frozen"), ("qwen3", True, "frozen"), ("qwen3", False, "frozen")],
)  # fmt: skip
def test_saved_activations_are_counted_tensor_by_tensor(family: str, bf16: bool, peft: str, attention: str) -> None:
    """Two models that differ in the number of layers alone save layers' bytes more of one another."""
    from peft import LoraConfig, get_peft_model

    register()
    rows, length = 2, 32
    ids = torch.randint(0, 300, (rows, length))
    positions = torch.cat([torch.arange(16), torch.arange(16)])[None].expand(rows, -1)
    found = []
    for layers in (2, 4):
        names = {"llama": "Llama", "qwen3": "Qwen3"}
        config = getattr(transformers, f"{names[family]}Config")(**{**TINY, "num_hidden_layers": layers})
        model = getattr(transformers, f"{names[family]}ForCausalLM")(config)
        model.set_attn_implementation(attention)
        if peft == "lora":
            model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
        if peft == "frozen":
            model.requires_grad_(False).get_input_embeddings().requires_grad_(True)
        bare = model.base_model.model.model if peft == "lora" else model.model
        with saving(model) as saved, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            bare(input_ids=ids, position_ids=positions, use_cache=False)
        found.append(sum(saved.values()))
    shape = Shape(family, 300, 64, 176, 4, 4, 2, 16, False, 512)
    setting = work(length, rows, bf16=bf16, peft=peft if peft == "lora" else "full")
    copies = 2 * shape.layer_linear * bf16
    adapters = 2 * shape.adapter_parameters(8) / shape.layers * (bf16 and peft == "lora")
    counted = activations.frozen_bytes if peft == "frozen" else activations.layer_bytes
    per_layer = rows * length * counted(shape, setting, "sdpa_float32")
    per_layer += copies + adapters
    seen = (found[1] - found[0]) / 2
    if attention == "sdpa_float32":
        assert seen == pytest.approx(per_layer, rel=0.01)
    else:  # documents in rows of their own are planned as if under a mask
        assert 0.85 * per_layer < seen <= 1.01 * per_layer


@pytest.mark.parametrize("bf16", [True, False])
def test_frozen_layers_that_are_not_made_again_are_counted(bf16: bool) -> None:
    """Six layers, of which the third and the last learn: the two lowest pass nothing back."""
    ids, positions = torch.randint(0, 300, (2, 32)), torch.arange(16).repeat(2)[None].expand(2, -1)
    shape, found, counted = Shape("llama", 300, 64, 176, 6, 4, 2, 16, False, 512), [], []
    register()
    for checkpointing, keeps in ((True, False), (True, True), (False, False)):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**{**TINY, "num_hidden_layers": 6})
        model = transformers.LlamaForCausalLM(config).train().requires_grad_(False)
        model.set_attn_implementation("sdpa_float32")
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
            model.disable_input_require_grads()
        for place, layer in enumerate(model.model.layers):
            layer.requires_grad_(place in (2, 5))
            layer.gradient_checkpointing = checkpointing and (place in (2, 5) or (place > 2 and not keeps))
        with saving(model) as saved, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            model.model(input_ids=ids, position_ids=positions, use_cache=False)
        found.append(sum(saved.values()))
        setting = replace(work(32, 2, bf16=bf16), only=(2, 5), checkpointing=checkpointing, keeps_frozen=keeps)
        assert (setting.passed(shape), setting.again(shape)) == (4, checkpointing * (2 if keeps else 4))
        kept = 64 * activations.kept_bytes(shape, setting, "sdpa_float32")
        copies = activations.copies_bytes(shape, setting)
        if checkpointing:  # of weights that learn, which autocast holds and the graph does not
            copies -= 2 * 2 * shape.layer_linear * bf16
        counted.append(kept + copies)
    for place in (1, 2):
        assert found[place] - found[0] == pytest.approx(counted[place] - counted[0], rel=0.03)
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("family", ["gpt2", "phi", "gemma2", "granite"])
def test_of_another_family_the_files_tell_the_parameters(family: str, tmp_path: Path) -> None:
    from tests.end_to_end.test_families import FAMILIES as PUBLISHED
    from tests.end_to_end.test_families import publish

    publish(PUBLISHED[family], tmp_path)
    shape = shape_of(ModelSettings(path=str(tmp_path)))
    assert shape is not None
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert shape.parameters == model.num_parameters()
    layers = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name and "wte" not in name]
    matrices = sum(p.numel() for p in layers if max(p.shape) < 500)  # neither position table nor head
    assert shape.layers * shape.layer_linear == pytest.approx(matrices, rel=0.02)
