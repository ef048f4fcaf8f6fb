"""`peft` and what belongs to it: run-wide or per stage, with the defaults written out, and one error per mistake."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from common.config.resolve import resolve
from common.config.stage_sections import Layer, is_adapted, values_of
from common.config.stages import LORA, NF4, LearningSettings
from common.console import Console
from common.engine.plan import make_plan
from common.engine.run import execute
from common.errors import ConfigError
from tests.conftest import QUICK, REPOSITORY


def stages(**words: str) -> dict[str, Any]:
    resolved = resolve({"domain": "medical", "pipeline": "full", **words}, REPOSITORY)
    return {name: s for name, s in resolved.config.stages.items() if isinstance(s, LearningSettings)}


def test_a_run_wide_choice_holds_for_every_stage_but_the_base() -> None:
    found = {name: settings.peft for name, settings in stages(peft="qlora").items()}
    assert found == {"base": "full", "cpt": "qlora", "sft": "qlora", "dpo": "qlora"}
    found = {name: settings.peft for name, settings in stages(peft="qlora", **{"sft.peft": "full"}).items()}
    assert found == {"base": "full", "cpt": "qlora", "sft": "full", "dpo": "qlora"}


def test_the_defaults_are_part_of_the_settings() -> None:
    plain, adapted = stages()["sft"], stages(**{"sft.peft": "lora", "sft.lora.r": "4"})["sft"]
    assert (plain.lora, plain.quantization) == (None, None)
    assert {**adapted.lora, "r": LORA["r"]}.items() >= LORA.items()
    assert adapted.lora["r"] == 4
    assert adapted.quantization is None
    quantised = stages(**{"sft.peft": "qlora"})["sft"]
    assert quantised.quantization == {**NF4, "bnb_4bit_compute_dtype": quantised.precision}
    eight = stages(**{"sft.peft": "qlora", "sft.quantization.load_in_8bit": "true"})["sft"]
    assert eight.quantization == {"load_in_8bit": True}


def test_a_later_layer_wins_and_its_stage_over_its_run() -> None:
    node = next(n for n in resolve({"domain": "medical"}, REPOSITORY).nodes if n.name == "sft")
    run_wide, own = Layer("profile", {"peft": "lora"}), Layer("domain", {"sft": {"peft": "full"}})
    assert not is_adapted(node, [run_wide, own])
    assert is_adapted(node, [own, run_wide])
    both = Layer("command line", {"peft": "lora", "sft": {"peft": "full"}})
    assert not is_adapted(node, [both])


def test_the_block_adapter_holds_only_with_an_adapter() -> None:
    node = next(n for n in resolve({"domain": "medical"}, REPOSITORY).nodes if n.name == "sft")
    layer = Layer("profile", {"sft": {"epochs": 1, "adapter": {"epochs": 2}}})
    assert list(values_of(node, layer, adapted=False)) == [{"epochs": 1}]
    assert list(values_of(node, layer, adapted=True)) == [{"epochs": 1}, {"epochs": 2}]


@pytest.mark.parametrize("profile", [path.stem for path in (REPOSITORY / "pipelines" / "profiles").glob("*.yaml")])
@pytest.mark.parametrize("domain", [path.parent.name for path in (REPOSITORY / "domains").glob("*/stages.yaml")])
def test_every_shipped_file_resolves_with_adapters(domain: str, profile: str) -> None:
    for words in ({}, {"model.path": "/somewhere", "data": "hub"}):
        resolve({"domain": domain, "profile": profile, "peft": "qlora", **words}, REPOSITORY)


def test_full_fine_tuning_is_the_default_and_no_part_of_a_recipe(copy: Path) -> None:
    words = {"domain": "medical", "out": str(copy), **QUICK}
    artifact = next(s for s in make_plan(resolve(words, REPOSITORY)).steps if s.node.name == "sft").artifact
    assert artifact is not None
    assert not {"peft", "lora", "quantization"} & artifact.manifest["recipe"]["settings"].keys()
    assert artifact.manifest["settings"]["peft"] == "full"  # for the card
    assert make_plan(resolve({**words, "peft": "full"}, REPOSITORY)).to_do == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"peft": "qlra"}, "peft (command line): expected full, lora or qlora; got 'qlra'. Did you mean 'qlora'?"),
        ({"base.peft": "lora"}, "base: peft is lora, but the base has no model before it to adapt; remove peft"),
        ({"sft.lora.r": "4"}, "sft: lora is set, but peft is full; set peft=lora (or qlora), or remove lora"),
        ({"sft.peft": "lora", "sft.quantization.load_in_4bit": "true"}, "sft: quantization is set, but peft is lora; set peft=qlora"),
        ({"sft.peft": "lora", "sft.lora.rr": "4"}, "sft.lora.rr (command line): LoraConfig of peft has no option 'rr'. Did you mean 'r'?"),
        ({"sft.peft": "lora", "sft.lora.init_lora_weights": "pissa"}, "sft.lora.init_lora_weights=pissa changes the weights under the adapter"),
        ({"sft.peft": "qlora", "sft.quantization.bnb_4bit_quant": "nf4"}, "sft.quantization.bnb_4bit_quant (command line): BitsAndBytesConfig of transformers has no option 'bnb_4bit_quant'. Did you mean"),
        ({"sft.peft": "qlora", "sft.quantization.bnb_4bit_use_double_quant": "nf4"}, "sft.quantization.bnb_4bit_use_double_quant (command line): expected bool, got 'nf4'"),
        ({"sft.peft": "qlora", "sft.quantization.load_in_4bit": "false"}, "sft.quantization quantises nothing; set load_in_4bit=true, or peft=lora"),
        ({"sft.adapter": "5"}, "sft.adapter (command line): expected keys below it, got 5"),
    ],
)  # fmt: skip
def test_one_clear_error_for_each_mistake(words: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        stages(**words)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ({"peft": "qlora"}, "cpt.peft=qlora"),
        ({"sft.train.optim": "adamw_bnb_8bit"}, "sft.train.optim=adamw_bnb_8bit"),
    ],
)
def test_what_is_not_installed_is_told_by_a_plan(
    words: dict[str, str], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError) as caught:
        stages(**words)
    assert f"{key} needs the package bitsandbytes, which is not installed; run `just setup`" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"sft.train.optim": "paged_adamw_8bit"}, "sft.train.optim=paged_adamw_8bit: paged optimizers need a CUDA device, and this stage trains on cpu. Use adamw_8bit."),
        ({"sft.train.optim": "paged_adamw_32bit"}, "this stage trains on cpu. Use adamw_torch."),
        ({"dpo.train.use_liger_kernel": "true"}, "dpo.train.use_liger_kernel=true: Liger's kernels need a CUDA device, and this stage trains on cpu. Leave it out."),
    ],
)  # fmt: skip
def test_what_needs_cuda_is_refused_before_anything_is_spent(
    words: dict[str, str], expected: str, quick_words: dict[str, str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        execute(
            resolve({**quick_words, "pipeline": "full", **words, "run.device": "cpu"}, REPOSITORY), Console("quiet")
        )
    assert expected in str(caught.value)
    assert not (Path(quick_words["out"]) / "artifacts").exists()


def test_a_device_without_a_backend_is_refused_before_anything_is_spent(
    quick_words: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import bitsandbytes
    from bitsandbytes import optim

    monkeypatch.setattr(bitsandbytes, "supported_torch_devices", {"cuda"})
    words = {**quick_words, "pipeline": "full", "run.device": "cpu"}
    with pytest.raises(ConfigError) as caught:
        execute(resolve({**words, "sft.peft": "qlora"}, REPOSITORY), Console("quiet"))
    assert "sft.peft=qlora: bitsandbytes cannot quantise on cpu (its devices are cuda). Use peft=lora" in str(
        caught.value
    )
    monkeypatch.setattr(optim, "AdamW8bit", None)
    monkeypatch.delattr(optim, "AdamW8bit")
    with pytest.raises(ConfigError) as caught:
        execute(resolve({**words, "sft.train.optim": "adamw_bnb_8bit"}, REPOSITORY), Console("quiet"))
    assert "sft.train.optim=adamw_bnb_8bit: bitsandbytes cannot run this optimizer on cpu" in str(caught.value)
