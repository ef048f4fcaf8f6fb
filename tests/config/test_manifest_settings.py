"""A data manifest sets what belongs to data, and nothing that names a model, runs code or leaves the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config.base import OF_DATA, Frozen
from common.config.kinds import kinds
from common.config.manifest_settings import TRAIN_OF_DATA, closed_keys
from common.config.pipeline import load_pipeline
from common.config.resolve import Resolved, resolve
from common.config.schema import Config
from common.config.trl_mappings import REWARDED, TOKENS
from common.config.yaml import read_yaml
from common.errors import ConfigError
from tests.conftest import REPOSITORY

CLOSED = [
    "model: {path: /elsewhere}", "model: {trust_remote_code: true}", "model: {revision: main}", "model: {licence: mit}",
    "model: {architecture: {hidden_size: 8}}", "model: {new_tokens: [a]}", "run: {report_to: wandb}",
    "run: {attention: owner/kernel}", "run: {device: cuda}", "publish: {to: 'hub:owner/name'}",
    "publish: {latest: true}",
    "publish: {licence: mit}", "gate: {mode: 'off'}", "needs: {gpus: 0}", "card: {tags: [x]}",
    "evaluate: {tasks: [humaneval]}", "exam-base: {tasks: [humaneval]}", "evaluate: {batch_size: 1}",
    "sft: {peft: lora}", "sft: {adapter: {lora: {r: 4}}}", "sft: {guard: {times: 0}}", "sft: {micro_batch_tokens: 1}",
    "cpt: {train: {report_to: wandb}}", "cpt: {train: {logging_dir: /elsewhere}}", "cpt: {train: {seed: 3}}",
    "cpt: {adapter: {train: {push_to_hub: true}}}", "cpt: {train: {torch_compile: true}}", "merge: {method: linear}",
    "data: hub", "seed: 3", "peft: lora", "precision: float16",
]  # fmt: skip
OPEN = [
    "base: {tokens: 5, sequence_length: 64}", "cpt: {replay: 0.5, limits: {dropped: 1}, schedule: {floor: 0}}",
    "sft: {train: {learning_rate: 0.1}, adapter: {train: {learning_rate: 0.2}, epochs: 3}}",
    "dpo: {epochs: 2, batch_pairs: 4}", "evaluate: {tasks: [], answer_tokens: 9, limit: 3}",
    "exam-base: {written: true}",
    "model: {vocabulary_size: 2048}", "verify: {rewards: {number: {after: '#'}}, check: number}",
    "grpo: {steps: 3, watch: {prompts: 9}}", "cpt: {tokenz: 5}", "nonsense: {a: 1}", "cpt: 5",
]  # fmt: skip


def resolved(folder: Path, text: str, **words: str) -> Resolved:
    (folder / "own.yaml").write_text(f"title: x\n{text}\n", encoding="utf-8")
    return resolve({"domain": "medical", "data": str(folder / "own.yaml"), **words}, REPOSITORY)


@pytest.mark.parametrize("settings", CLOSED)
def test_what_is_not_of_data_is_refused(settings: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"own\.yaml: settings\.[a-z.\-_]+ is not for a data manifest: a manifest "):
        resolved(tmp_path, f"settings: {{{settings}}}")
    with pytest.raises(ConfigError, match=r"own\.yaml: profiles\.qwen3-8b\.[a-z.\-_]+ is not for a data manifest"):
        resolved(tmp_path, f"profiles: {{qwen3-8b: {{{settings}}}}}")


@pytest.mark.parametrize("settings", OPEN)
def test_what_is_of_data_is_left_to_the_other_checks(settings: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(settings, encoding="utf-8")
    assert list(closed_keys(read_yaml(tmp_path / "own.yaml"), load_pipeline(REPOSITORY / "pipelines", "full"))) == []


def test_the_message_names_file_key_reason_and_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        resolved(tmp_path, "settings: {model: {path: /elsewhere}}")
    assert str(error.value) == (
        f"{tmp_path / 'own.yaml'}: settings.model.path is not for a data manifest: a manifest comes with data, so it "
        "sets what belongs to data alone: budgets, lengths, rates, replay, limits, rewards, the exam and "
        "model.vocabulary_size. Give model.path=… on the command line, or set it in a profile, a pipeline or the "
        "domain's stages.yaml."
    )
    with pytest.raises(
        ConfigError, match=r"(?s)own\.yaml has 2 problems:.*settings\.run\.wait.*Give run\.wait=…, seed=… "
    ):
        resolved(tmp_path, "settings: {run: {wait: false}, seed: 3}")


def test_a_nearest_name_is_given_as_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cpt\.tokenz .*unknown key\. Did you mean 'tokens'\?"):
        resolved(tmp_path, "settings: {cpt: {tokenz: 5}}")


@pytest.mark.parametrize(
    "path", sorted(REPOSITORY.glob("domains/*/data.yaml")) + sorted(REPOSITORY.glob("tests/real/*.yaml"))
)
def test_the_manifests_of_the_product_set_what_they_may(path: Path) -> None:
    manifest = read_yaml(path)
    for values in (manifest.get("settings", {}), *manifest.get("profiles", {}).values()):
        assert list(closed_keys(values, load_pipeline(REPOSITORY / "pipelines", "full"))) == []


def test_settings_are_closed_by_default() -> None:
    """What is open is counted, so that a new mark is a decision; sections of the whole run have none but these."""
    assert {"path", "revision", "to", "peft", "lora", "train", "tasks", "precision"}.isdisjoint(
        name for kind in kinds().values() for name in marked(kind.settings)
    )
    sections = {name: marked(field.annotation) for name, field in Config.model_fields.items()}
    assert {name: found for name, found in sections.items() if found} == {
        "model": ["vocabulary_size"], "verify": ["rewards", "check"],
    }  # fmt: skip
    assert {"report_to", "output_dir", "logging_dir", "push_to_hub", "seed"}.isdisjoint(TRAIN_OF_DATA)
    assert {*TOKENS, *REWARDED} > {name for name in TRAIN_OF_DATA if name.startswith(("max_", "num_"))}


def marked(cls: object) -> list[str]:
    if not (isinstance(cls, type) and issubclass(cls, Frozen)):
        return []
    return [name for name, field in cls.model_fields.items() if OF_DATA in field.metadata]


def test_code_is_trusted_for_one_checkpoint(tmp_path: Path) -> None:
    """Another `model.path` does not get what a lower layer allows the code of its own checkpoint."""
    from common.config.build import build
    from common.config.stage_sections import Layer

    pipeline = load_pipeline(REPOSITORY / "pipelines", "full")
    lower = Layer("profile x", {"model": {"path": "a", "trust_remote_code": True}})
    for path, trusted in (("a", True), ("b", False)):
        config, _ = build("medical", "tiny", [lower, Layer("command line", {"model": {"path": path}})], pipeline)
        assert config.model.trust_remote_code is trusted
