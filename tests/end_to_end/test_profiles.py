"""Every profile of the folder loads, tells the facts of a model of that shape, and fits the classes of its stages."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from common.config.answering import RewardedSettings
from common.config.batches import SHARDED
from common.config.folders import names_in
from common.config.node import Node
from common.config.resolve import Resolved, resolve
from common.config.schema import Config, ModelFacts
from common.config.stages import LearningSettings, PreferenceSettings, TrainingSettings
from common.cost import hardware
from common.cost.hardware import GIB
from common.cost.limits import disk_needed, needed_of
from common.cost.outlook import Outlook
from common.engine.preflight.settings import check_settings
from common.errors import ConfigError
from common.models.local import is_local
from common.training.distributed import ranks
from common.training.options import preference_options, rewarded_options, sft_options
from tests.conftest import REPOSITORY, training

FOLDER = REPOSITORY / "pipelines" / "profiles"
PROFILES = names_in(FOLDER)
REAL = [name for name in PROFILES if name != "tiny"]
# What AdamW keeps of a trained weight: itself, its gradient, and two moments, in float32 (Rajbhandari et al. 2020,
# arXiv 1910.02054, section 3.1, with float32 in the place of half precision and a copy).
TRAINED_BYTES = 16
QUANTISED_BYTES = 0.5


@functools.cache
def resolved(profile: str, domain: str = "medical", **words: str) -> Resolved:
    """Resolve a run as on a CPU with bfloat16, whatever this one has."""
    with mock.patch("common.config.precision.cpu_kind", return_value="amx"):
        return resolve({"domain": domain, "profile": profile, **words}, REPOSITORY)


def facts_of(config: Config) -> ModelFacts:
    assert config.model.facts is not None
    return config.model.facts


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("domain", names_in(REPOSITORY / "domains", ""))
def test_a_profile_can_run_every_domain_with_its_own_pipeline(
    domain: str, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = resolved(profile, domain)
    if is_local(found.config.model.path):  # the package may not be installed here
        monkeypatch.setattr("common.engine.preflight.settings.check_local", lambda model: None)
    check_settings(found)


@pytest.mark.parametrize("profile", REAL)
def test_a_checkpoint_is_pinned_and_described(profile: str) -> None:
    model = resolved(profile).config.model
    assert model.path is not None
    assert is_local(model.path) or len(model.revision or "") == 40  # a package's file is identified by its digest
    assert model.facts is not None


@pytest.mark.parametrize("profile", REAL)
def test_the_facts_are_those_of_a_model_of_that_shape(profile: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    facts = facts_of(resolved(profile).config)
    shape = facts.model_dump(exclude={"model_type", "parameters", "licence", "chat_template"})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(facts.model_type, **shape))
    assert model.num_parameters() == facts.parameters
    assert model.get_input_embeddings().weight.shape == (facts.vocab_size, facts.hidden_size)
    assert model.model.layers[0].self_attn.k_proj.weight.shape[0] == facts.num_key_value_heads * facts.head_dim


def learning(found: Resolved) -> Iterator[tuple[Node, Any]]:
    """Yield the stages that train, with their settings."""
    for node in found.nodes:
        settings = found.config.stages[node.name]
        if isinstance(settings, LearningSettings) and not (node.kind == "base" and found.config.model.path):
            yield node, settings


def arguments_of(node: Node, settings: LearningSettings, config: Config, folder: Path) -> Any:
    """Build the class of TRL that a stage's trainer takes, from the options that the stage would give it."""
    import importlib

    modules = ("trl", "trl.experimental.orpo")
    cls: Any = next(c for m in modules if (c := getattr(importlib.import_module(m), settings.trainer, None)))
    config = config.model_copy(update={"run": config.run.model_copy(update={"device": "cpu"})})
    if isinstance(settings, TrainingSettings):
        return cls(**sft_options(settings, config, folder, steps=100, stage=node.name))
    if isinstance(settings, PreferenceSettings):
        return cls(**preference_options(settings, config, folder, num_pairs=1000, stage=node.name))
    assert isinstance(settings, RewardedSettings)
    return cls(**rewarded_options(settings, config, folder, num_prompts=1000, stage=node.name))


@pytest.mark.parametrize("profile", REAL)
@pytest.mark.parametrize("pipeline", [None, "orpo", "kto", "grpo", "rloo", "rlhf"])
def test_the_classes_of_trl_take_its_settings(
    profile: str, pipeline: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.config.precision.cpu_kind", lambda: "amx")
    found = resolved(profile, **({"pipeline": pipeline} if pipeline else {}))
    run = found.config.run
    monkeypatch.setattr(ranks, "size", lambda: run.processes)
    seen = 0
    for node, settings in learning(found):
        if isinstance(settings, RewardedSettings) and run.parallelism in SHARDED and run.processes > 1:
            with pytest.raises(ConfigError, match=f"{node.name} cannot be sharded"):
                check_settings(found)
            continue
        arguments = arguments_of(node, settings, found.config, tmp_path)
        seen += 1
        assert arguments.bf16
        assert arguments.gradient_checkpointing or profile.startswith("smollm2-135m")
        if isinstance(settings, TrainingSettings):
            rows = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * run.processes
            assert rows * settings.sequence_length == settings.batch_tokens
    assert seen >= 2


@pytest.mark.parametrize("profile", REAL)
@pytest.mark.parametrize("peft", ["lora", "qlora"])
def test_the_classes_of_an_adapter_take_its_settings(profile: str, peft: str) -> None:
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig

    for node, settings in learning(resolved(profile, peft=peft)):
        assert LoraConfig(**settings.lora).r >= 16, node.name
        if peft == "qlora":
            assert BitsAndBytesConfig(**settings.quantization).bnb_4bit_quant_type == "nf4"


@pytest.mark.parametrize("profile", REAL)
def test_the_hardware_that_it_names_holds_the_weights_and_their_optimizer(profile: str) -> None:
    config = resolved(profile).config
    facts, needs, run = facts_of(config), config.needs, config.run
    tables = facts.vocab_size * facts.hidden_size * (1 if facts.tie_word_embeddings else 2)
    if config.peft == "qlora":
        least = (facts.parameters - tables) * QUANTISED_BYTES + tables * 4
        least += facts.parameters * 4  # DPO's reference, the stage before, whole
    else:
        least = facts.parameters * TRAINED_BYTES / (run.processes if run.parallelism in SHARDED else 1)
    assert least / GIB <= (needs.gpu_memory_gb if needs.device == "cuda" else needs.host_memory_gb)
    assert facts.parameters * 4 / GIB <= needs.host_memory_gb  # a whole model is read, merged and checked there
    assert max(1, needs.gpus) * needs.machines == run.processes
    assert needs.machines == run.machines
    chain = 5 * facts.parameters * (4 if config.model.dtype == "float32" else 2)  # five stages keep their weights
    trained = 0 if config.peft else facts.parameters * 12 * 2  # two checkpoints of weights and moments
    assert (chain + trained) / GIB <= needs.disk_gb


def test_what_a_profile_says_of_adapters_holds_over_a_domains_full_fine_tuning() -> None:
    adapted: Any = resolved("qwen3-8b-qlora").config.stages["cpt"]
    full: Any = resolved("qwen3-8b-qlora", peft="full").config.stages["cpt"]
    assert (adapted.train["learning_rate"], full.train["learning_rate"]) == (2e-4, 3e-5)
    assert adapted.tokens == full.tokens == 2_000_000_000  # the domain's
    given = resolve(
        {"domain": "medical", "profile": "qwen3-8b-qlora", "cpt.train.learning_rate": "1e-5"}, REPOSITORY
    ).config
    assert training(given, "cpt").train["learning_rate"] == 1e-5


def test_another_checkpoint_leaves_the_facts_of_the_profiles_behind(tmp_path: Path) -> None:
    words = {"domain": "medical", "profile": "qwen3-0.6b", "model.path": str(tmp_path)}
    model = resolve(words, REPOSITORY).config.model
    assert (model.facts, model.revision, model.chat_template) == (None, None, "own")
    own = resolved("qwen3-0.6b").config.model
    same = resolve({**words, "model.path": str(own.path)}, REPOSITORY).config.model
    assert same == own


@pytest.mark.parametrize("profile", REAL)
def test_the_hardware_that_it_names_is_what_its_plan_takes(profile: str) -> None:
    needs = resolved(profile).config.needs
    planned = resolved(profile)
    if needs.device == "cuda":
        planned = resolved(profile, **{"run.hardware": hardware._least(needs.gpu_memory_gb).name})
    outlook = Outlook.of(planned)
    names = [node.name for node in planned.nodes]
    phases = [(phase, need) for name in names for phase, need in outlook.phases(name).items()]
    devices, hosts = zip(*(needed_of(outlook, phase, need) for phase, need in phases), strict=True)
    assert max(hosts) / GIB <= needs.host_memory_gb
    if needs.device == "cuda":
        assert max(devices) / GIB <= needs.gpu_memory_gb <= 1.5 * max(devices) / GIB
    assert disk_needed(outlook, names) / GIB <= needs.disk_gb <= 2 * disk_needed(outlook, names) / GIB
