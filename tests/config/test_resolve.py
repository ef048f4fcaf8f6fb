"""Configuration: layers, origins, refusals with the nearest key, and no key that nothing reads."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config.base import Schedule
from common.config.folders import names_in
from common.config.overrides import flatten, nest
from common.config.resolve import resolve
from common.config.schema import Config
from common.errors import ConfigError, DataError, RecipeError
from tests.conftest import REPOSITORY, long, training


def resolved(**words: str) -> Config:
    return resolve({"domain": "medical", **{k.replace("__", "."): v for k, v in words.items()}}, REPOSITORY).config


def odd_domain(root: Path, stages: str) -> None:
    """Write a domain whose stages.yaml is given, beside the shipped pipelines."""
    (root / "pipelines").symlink_to(REPOSITORY / "pipelines")
    folder = root / "domains" / "odd"
    folder.mkdir(parents=True)
    (folder / "stages.yaml").write_text(stages, encoding="utf-8")
    for name in ("knowledge.yaml", "data.yaml"):
        (folder / name).touch()


def test_the_command_line_wins_over_every_file() -> None:
    found = resolve({"domain": "medical", "cpt.train.learning_rate": "1e-5"}, REPOSITORY)
    settings: Any = found.config.stages["cpt"]
    assert settings.train["learning_rate"] == 1e-5
    assert found.origins["cpt.train.learning_rate"] == "command line"
    assert found.origins["cpt.tokens"] == "profile tiny"
    assert found.origins["card.limits_of_use"] == "domain medical"


def test_a_control_arm_takes_the_settings_of_its_stage_and_its_own_last() -> None:
    stages: dict[str, Any] = dict(resolved(**{"sft.tokens": "40960", "sft-only.tokens": "81920"}).stages)
    assert stages["sft"].tokens == 40960
    assert stages["sft-only"].tokens == 81920
    assert stages["sft-only"].train == stages["sft"].train


def test_what_a_pipeline_fixes_for_a_stage_holds_whatever_a_layer_says(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("settings: {cpt: {replay: 0.3}}\n", encoding="utf-8")
    words = {"domain": "medical", "pipeline": "control", "data": str(tmp_path / "own.yaml")}
    found = resolve({**words, "cpt.replay": "0.4"}, REPOSITORY)
    assert [training(found.config, name).replay for name in ("general-text", "cpt")] == [1, 0.4]
    assert found.origins["general-text.replay"] == "pipeline control"
    with pytest.raises(ConfigError, match=r"general-text\.replay: the pipeline control fixes it at 1; leave it out"):
        resolve({**words, "general-text.replay": "0.5"}, REPOSITORY)


@pytest.mark.parametrize("words", [{"prompted.tokens": "8192"}, {"prompted.tokens": "8192", "prompted.epochs": "4"}])
def test_a_budget_beside_the_one_that_a_pipeline_fixes_is_refused(words: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"prompted\.tokens: the pipeline pcp fixes prompted\.epochs at 4, which"):
        resolve({"domain": "medical", "pipeline": "pcp", **words}, REPOSITORY)
    given = {"domain": "medical", "pipeline": "pcp", "cpt.tokens": "8192", "prompted.epochs": "4"}
    assert resolve(given, REPOSITORY).config.stages["prompted"].model_dump()["epochs"] == 4


def test_values_may_hold_spaces_and_equal_signs() -> None:
    assert nest({"card.intended_use": "a = b, with spaces"}) == {"card": {"intended_use": "a = b, with spaces"}}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"domain": "medicl"}, "There is no domain 'medicl'. Did you mean 'medical'?"),
        ({}, "No domain is given"),
        ({"domain": "medical", "profile": "tinny"}, "no profile 'tinny'. Did you mean 'tiny'?"),
        ({"domain": "medical", "pipeline": "ful"}, "no pipeline 'ful'. Did you mean 'full'?"),
        ({"domain": "medical", "cptt.tokens": "5"}, "cptt (command line): no section or stage of that name. Did you mean 'cpt'?"),
        ({"domain": "medical", "cpt.tokns": "5"}, "cpt.tokns (command line): unknown key. Did you mean 'tokens'?"),
        ({"domain": "medical", "cpt.schedule.warmpu": "0.1"}, "cpt.schedule.warmpu (command line): unknown key. Did you mean 'warmup'?"),
        ({"domain": "medical", "model.pth": "x"}, "model.pth (command line): unknown key. Did you mean 'path'?"),
        ({"domain": "medical", "cpt.tokens": "many"}, "cpt.tokens (command line): expected a whole number; got"),
        ({"domain": "medical", "cpt.replay": "1.5"}, "cpt.replay (command line): expected 0 to 1; got 1.5"),
        ({"domain": "medical", "seed": "-1"}, "seed (command line): expected 0 to 4,294,967,295; got -1"),
        ({"domain": "medical", "cpt.train.learning_rat": "1"}, "SFTConfig of TRL has no option 'learning_rat'. Did you mean 'learning_rate'?"),
        ({"domain": "medical", "dpo.train.betta": "1"}, "DPOConfig of TRL has no option 'betta'. Did you mean 'beta'?"),
        ({"domain": "medical", "cpt.train.learning_rate": "fast"}, "cpt.train.learning_rate (command line): expected float, got 'fast' (str)"),
        ({"domain": "medical", "cpt.train.learning_rate": "-1"}, "cpt.train.learning_rate (command line): expected a number from 0 to 10, got -1"),
        ({"domain": "medical", "seed": "4294967296"}, "seed (command line): expected 0 to 4,294,967,295; got 4294967296"),
        ({"domain": "medical", "cpt.train.packing_strategy": "wrapped"}, "set cpt.packing=trl to use it"),
        ({"domain": "medical", "cpt.peft": "lora", "cpt.lora.rr": "8"}, "LoraConfig of peft has no option 'rr'. Did you mean 'r'?"),
        ({"domain": "medical", "cpt": "5"}, "cpt (command line): expected keys below it, got 5"),
        ({"domain": "medical", "pipeline": "full", "sft-only.tokens": "5"}, "sft-only (command line): no section or stage of that name"),
        ({"domain": "medical", "cpt.tokens": "4096", "cpt.epochs": "2"}, "cpt (command line): tokens and epochs are both set; keep one"),
        ({"domain": "medical", "cpt.batch_tokens": "2000"}, "batch_tokens=2000 is no multiple of sequence_length=256, and a step reads whole rows; set batch_tokens=1792 or 2048"),
    ],
)  # fmt: skip
def test_one_clear_error_for_each_mistake(words: dict[str, str], expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(words, REPOSITORY)
    assert expected in str(caught.value)


def test_another_merge_method_starts_without_the_parameters_of_the_first() -> None:
    words = {"merge.method": "slerp", "merge.base": "base", "merge.models": "{dpo: {}}", "merge.parameters.t": "0.5"}
    merge: Any = resolved(**words).stages["merge"]
    assert merge.models == {"dpo": {}}
    same: Any = resolved(**{"merge.method": "linear", "merge.models.dpo.weight": "0.5"}).stages["merge"]
    assert same.models["base"] == {"weight": 0.03}


def test_a_missing_manifest_is_named() -> None:
    with pytest.raises(DataError, match=r"nowhere\.yaml: no such file"):
        resolve({"domain": "medical", "data": "nowhere.yaml"}, REPOSITORY)


def test_warmup_and_decay_must_fit() -> None:
    with pytest.raises(ValueError, match="take more than all steps"):
        Schedule(kind="wsd", warmup=0.6, decay=0.6)


def shipped() -> list[Any]:
    """Return all domains, pipelines and profiles together; long is what two of them show already."""
    pipelines, profiles = (names_in(REPOSITORY / "pipelines" / folder) for folder in ("", "profiles"))
    every = itertools.product(names_in(REPOSITORY / "domains", ""), pipelines, profiles)
    return [case if case[0] == "medical" or case[1] == "full" else long(*case) for case in every]


@pytest.mark.parametrize(("domain", "pipeline", "profile"), shipped())
def test_every_shipped_configuration_loads(domain: str, pipeline: str, profile: str) -> None:
    found = resolve({"domain": domain, "profile": profile, "pipeline": pipeline}, REPOSITORY)
    assert set(found.config.stages) == {node.name for node in found.nodes}


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        resolved().run.workers = 3  # type: ignore[misc] # the point of the test


def test_a_domain_without_its_files_says_which(tmp_path: Path) -> None:
    (tmp_path / "domains" / "empty").mkdir(parents=True)
    (tmp_path / "pipelines").symlink_to(REPOSITORY / "pipelines")
    with pytest.raises(DataError, match=r"lacks knowledge\.yaml, data\.yaml, stages\.yaml"):
        resolve({"domain": "empty"}, tmp_path)


def test_an_unknown_profile_in_a_domain_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "domains" / "odd"
    folder.mkdir(parents=True)
    (folder / "stages.yaml").write_text("profiles: {tinny: {}}\n", encoding="utf-8")
    for name in ("knowledge.yaml", "data.yaml"):
        (folder / name).touch()
    (tmp_path / "pipelines").symlink_to(REPOSITORY / "pipelines")
    with pytest.raises(ConfigError, match=r"profiles\.tinny: there is no such profile. Did you mean 'tiny'"):
        resolve({"domain": "odd"}, tmp_path)


def test_checkpoint_settings_hold_only_where_a_run_starts_from_one(tmp_path: Path) -> None:
    odd_domain(tmp_path, "checkpoint: {cpt: {tokens: 4096}}\nprofiles: {tiny: {cpt: {tokens: 2048}}}\n")
    tiny = resolve({"domain": "odd"}, tmp_path)
    real = resolve({"domain": "odd", "model.path": "some/where", "data": "hub"}, tmp_path)
    small = resolve({"domain": "odd", "model.path": "some/where"}, tmp_path)
    assert [training(found.config, "cpt").tokens for found in (tiny, real, small)] == [2048, 4096, 2048]
    assert real.origins["cpt.tokens"] == "domain odd, with a checkpoint"


REAL = "model: {path: some/where}, data: hub"


@pytest.mark.parametrize(
    ("files", "words", "tokens"),
    [
        # what names the model and the data -> whose budget the run gets
        ({"profile": REAL}, {}, 4096),
        ({"profile": REAL, "block": "cpt: {tokens: 2048}"}, {}, 2048),
        ({"pipeline": REAL, "block": "cpt: {tokens: 2048}"}, {}, 4096),
        ({"all": REAL, "block": "cpt: {tokens: 2048}"}, {}, 4096),
        ({"block": f"{REAL}, cpt: {{tokens: 2048}}"}, {}, 2048),
        ({"block": REAL}, {}, 4096),
        ({"block": "cpt: {tokens: 2048}"}, {"model.path": "some/where", "data": "hub"}, 4096),
        ({"all": "data: hub", "block": "cpt: {tokens: 2048}"}, {"model.path": "some/where"}, 4096),
        ({"pipeline": "data: hub", "block": "cpt: {tokens: 2048}"}, {"model.path": "some/where"}, 4096),
        ({"all": "model: {path: some/where}", "block": "cpt: {tokens: 2048}"}, {"data": "hub"}, 4096),
        # embedded data are small, whatever model reads them
        ({"all": "model: {path: some/where}", "block": "cpt: {tokens: 2048}"}, {}, 2048),
        ({"all": REAL, "block": "cpt: {tokens: 2048}"}, {"data": "embedded"}, 2048),
        ({"pipeline": REAL, "all": "data: embedded"}, {}, 1024),
        # a higher layer may also go back to the profile's architecture
        ({"pipeline": REAL, "all": "model: {path: null}"}, {}, 1024),
        ({"all": "data: hub"}, {}, 1024),
    ],
)  # fmt: skip
def test_every_layer_decides_whether_a_run_is_for_a_checkpoint_on_real_data(
    files: dict[str, str], words: dict[str, str], tokens: int, tmp_path: Path
) -> None:
    blocks = f"{{{files.get('block', '')}}}"
    odd_domain(
        tmp_path,
        f"all: {{{files.get('all', '')}}}\ncheckpoint: {{cpt: {{tokens: 4096}}}}\nprofiles: {{small: {blocks}}}\n",
    )
    pipelines = tmp_path / "pipelines"
    pipelines.unlink()
    shutil.copytree(REPOSITORY / "pipelines", pipelines)
    shutil.copy(REPOSITORY / "domains" / "medical" / "data.yaml", tmp_path / "domains" / "odd")
    model = "" if "model" in files.get("profile", "") else "model: {architecture: {hidden_size: 64}}, "
    profile = f"{{{model}{files.get('profile', '')}, cpt: {{tokens: 1024}}}}".replace(", ,", ",")
    (pipelines / "profiles" / "small.yaml").write_text(profile, encoding="utf-8")
    pipeline = (pipelines / "full.yaml").read_text(encoding="utf-8") + f"\nsettings: {{{files.get('pipeline', '')}}}\n"
    (pipelines / "full.yaml").write_text(pipeline, encoding="utf-8")
    found = resolve({"domain": "odd", "profile": "small", "sft.epochs": "1", "base.epochs": "1", **words}, tmp_path)
    assert training(found.config, "cpt").tokens == tokens


@pytest.mark.parametrize("domain", names_in(REPOSITORY / "domains", ""))
def test_every_checkpoint_setting_of_a_domain_holds(domain: str) -> None:
    raw = yaml.safe_load((REPOSITORY / "domains" / domain / "stages.yaml").read_text(encoding="utf-8"))
    given = flatten(raw["checkpoint"])
    assert any(key.startswith("cpt.") for key in given)
    words = {"domain": domain, "model.path": "/nonexistent", "model.revision": "0" * 40, "data": "hub"}
    resolved = resolve(words, REPOSITORY)
    values = flatten({name: stage.model_dump() for name, stage in resolved.config.stages.items()})
    for key, value in given.items():
        stage, _, rest = key.partition(".")
        if stage in resolved.config.stages:
            assert values[key] == (tuple(value) if isinstance(values[key], tuple) else value), key
            assert resolved.origins[key] == f"domain {domain}, with a checkpoint", key
        elif stage == "evaluate":
            assert values[f"exam-sft.{rest}"] == (tuple(value) if isinstance(value, list) else value), key


def test_a_manifest_has_settings_for_all_runs_and_for_those_of_one_profile(tmp_path: Path) -> None:
    manifest = tmp_path / "own.yaml"
    manifest.write_text(
        "settings: {cpt: {replay: 0.5, tokens: 2048}}\nprofiles: {tiny: {cpt: {tokens: 4096}}}\n", encoding="utf-8"
    )
    words = {"domain": "medical", "data": str(manifest)}
    found = [
        resolve(words | more, REPOSITORY)
        for more in ({}, {"cpt.tokens": "8192"}, {"profile": "smollm2-135m"}, {"model.path": "/nonexistent"})
    ]
    assert [training(one.config, "cpt").tokens for one in found] == [4096, 8192, 2048, 2048]
    assert [training(one.config, "cpt").replay for one in found] == [0.5] * 4
    assert found[0].origins["cpt.tokens"] == "manifest own.yaml, profile tiny"
    assert found[0].origins["cpt.replay"] == "manifest own.yaml"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("profiles: {tinny: {}}", "profiles.tinny: there is no such profile. Did you mean 'tiny'?"),
        ("profiles: {tiny: 5}", "tiny holds 5; expected keys such as cpt: {tokens: …}."),
        ("settings: [cpt]", "settings holds ['cpt']; expected keys such as cpt: {tokens: …}."),
    ],
)
def test_a_mistake_in_the_settings_of_a_manifest_is_named(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        resolve({"domain": "medical", "data": str(tmp_path / "own.yaml")}, REPOSITORY)
    assert expected in str(caught.value)


def test_a_profile_with_a_checkpoint_keeps_its_settings_on_data_of_ones_own(tmp_path: Path) -> None:
    """The domain's settings for checkpoints are made for the data sets of its data.yaml, and win only there."""
    (tmp_path / "own.yaml").touch()
    words = {"domain": "medical", "profile": "qwen3-8b"}
    mine = words | {"data": str(tmp_path / "own.yaml")}
    own, another, hub = (
        resolve(given, REPOSITORY) for given in (mine, mine | {"model.path": "some/folder"}, words | {"data": "hub"})
    )
    assert own.origins["cpt.sequence_length"] == another.origins["cpt.sequence_length"] == "profile qwen3-8b"
    assert hub.origins["cpt.sequence_length"] == "domain medical, with a checkpoint"


def test_mistakes_of_all_stages_are_named_at_once_with_their_file(tmp_path: Path) -> None:
    odd_domain(tmp_path, "all: {cpt: {rplay: 1}, sft: {tokens: many}, gate: {mode: loud}}\n")
    with pytest.raises(ConfigError) as caught:
        resolve({"domain": "odd"}, tmp_path)
    shown = str(caught.value)
    assert "cpt.rplay (domain odd; domains/odd/stages.yaml): unknown key. Did you mean 'replay'?" in shown
    assert "sft.tokens (domain odd; domains/odd/stages.yaml)" in shown
    assert "gate.mode (domain odd; domains/odd/stages.yaml)" in shown


def test_a_merge_of_another_name_has_settings_of_its_own(tmp_path: Path) -> None:
    words = {"domain": "finance", "pipeline": "orpo", "data": "hub", "model.path": "o/n", "model.revision": "a" * 40}
    found = resolve(words, REPOSITORY).config.stages["slerp"]
    assert found.model_dump()["method"] == "slerp"
    with pytest.raises(ConfigError, match="merge: the pipeline orpo has no such stage"):
        resolve({**words, "merge.method": "ties"}, REPOSITORY)


def test_settings_of_a_pipeline_are_for_stages_that_it_has(tmp_path: Path) -> None:
    odd_domain(tmp_path, "{}")
    (tmp_path / "pipelines").unlink()
    shutil.copytree(REPOSITORY / "pipelines", tmp_path / "pipelines")
    path = tmp_path / "pipelines" / "mine.yaml"
    text = "description: x\nstages: {base: {kind: base}, sft: {kind: sft, from: base}}\nexam: [sft]\npublish: sft\n"
    path.write_text(f"{text}settings: {{dpo: {{epochs: 2}}}}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^settings\.dpo: the pipeline mine has no such stage\."):
        resolve({"domain": "odd", "pipeline": "mine"}, tmp_path)


def test_a_file_may_have_a_section_for_a_stage_of_another_pipeline(tmp_path: Path) -> None:
    odd_domain(tmp_path, "all: {general-text: {tokens: 4096}}\n")
    for pipeline in ("full", "control"):
        stages = resolve({"domain": "odd", "pipeline": pipeline}, tmp_path).config.stages
        assert getattr(stages.get("general-text"), "tokens", None) == (4096 if pipeline == "control" else None)
    with pytest.raises(ConfigError, match=r"^general-text \(command line\): no section or stage of that name"):
        resolve({"domain": "odd", "pipeline": "full", "general-text.tokens": "4096"}, tmp_path)


def test_all_unknown_sections_of_a_domain_file_are_named_at_once(tmp_path: Path) -> None:
    odd_domain(tmp_path, "all: {crd: {}}\ncheckpoint: {cptt: {tokens: 5}}\nprofiles: {tinny: {}}\n")
    with pytest.raises(ConfigError) as caught:
        resolve({"domain": "odd"}, tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("odd/stages.yaml has 3 problems:")
    assert "profiles.tinny: there is no such profile" in lines[1]
    assert "all.crd: no section or stage of that name. Did you mean 'card'?" in lines[2]
    assert "checkpoint.cptt: no section or stage of that name. Did you mean 'cpt'?" in lines[3]


def test_a_budget_in_tokens_takes_the_place_of_epochs_in_a_lower_layer(tmp_path: Path) -> None:
    words = {"domain": "medical", "model.path": "/nonexistent", "data": "hub"}
    assert training(resolve(words, REPOSITORY).config, "sft").epochs == 3
    settings = training(resolve({**words, "sft.tokens": "8192"}, REPOSITORY).config, "sft")
    assert (settings.tokens, settings.epochs) == (8192, None)
