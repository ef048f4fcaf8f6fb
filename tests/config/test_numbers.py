"""Numbers of every setting: of their type, finite, not absurd, in every layer, refused with key, layer and limit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from pydantic import Field, ValidationError

from common.config.base import Frozen
from common.config.kinds import kinds
from common.config.numbers import is_finite, shown
from common.config.resolve import resolve
from common.config.schema import SECTIONS, Config, section_of
from common.data.manifest.schema import Source
from common.engine.frozen_plan import freeze, thaw
from common.errors import ConfigError
from tests.conftest import REPOSITORY

NAN, INF = float("nan"), float("inf")
NO_NUMBERS = [NAN, INF, -INF, "nan", "inf", "1e400", 1e30, "1e30", 2**70, -(2**70), 10**5000, "9" * 10_000, True, False]
NO_BOOLEANS = [0, 1, 1.0, 2, "0", "1", NAN, -1]
NO_INNER = [NAN, -INF, 1e30, 2**70, 10**5000]


class Every(Frozen):
    count: int | None = Field(1, ge=0)
    many: int = Field(1, le=10**15)
    rate: float = 0.5
    flag: bool = True
    either: bool | int = True
    options: dict[str, Any] = Field(default_factory=dict)


def _classes(cls: type[Frozen]) -> Iterator[type[Frozen]]:
    """Yield a settings class and those of its blocks."""
    yield cls
    for field in cls.model_fields.values():
        inner = [field.annotation, *get_args(field.annotation)]
        yield from (found for found in inner if isinstance(found, type) and issubclass(found, Frozen))


def _plain(annotation: Any) -> set[Any]:
    return set(get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation])


def test_every_field_of_every_settings_class_refuses_what_is_no_number_or_boolean() -> None:
    whole: list[type[Frozen]] = [
        *(kind.settings for kind in kinds().values()),
        *map(section_of, SECTIONS),
        Config,
        Source,
    ]
    checked = 0
    for cls in {found for each in whole for found in _classes(each)}:
        for name, field in cls.model_fields.items():
            types = _plain(field.annotation)
            wrong = NO_NUMBERS if types & {int, float} else NO_BOOLEANS if bool in types else []
            for value in wrong:
                with pytest.raises(ValidationError) as caught:
                    cls.model_validate({name: value})
                assert any(error["loc"][:1] == (name,) for error in caught.value.errors()), (cls, name, value)
                checked += 1
    assert checked > 1000


@pytest.mark.parametrize(
    "values", [{"count": 10**9}, {"many": 10**15}, {"rate": 1}, {"rate": "0.5"}, {"count": 1e3}, {"flag": "yes"},
               {"either": 1}, {"count": None}, {"options": {"a": [10**15, "nan", True, None]}}],
)  # fmt: skip
def test_what_is_right_stays(values: dict[str, Any]) -> None:
    Every.model_validate(values)


@pytest.mark.parametrize("value", NO_INNER, ids=["nan", "-inf", "1e30", "2**70", "10**5000"])
def test_numbers_within_keys_are_checked_too(value: float) -> None:
    for inner in ({"a": {"b": value}}, {"a": [{"b": value}]}):
        with pytest.raises(ValidationError, match=r"expected a finite number of at most 1,000,000,000,000,000"):
            Every.model_validate({"options": inner})


def test_numbers_are_finite_at_every_depth() -> None:
    assert is_finite({"a": [1.0, {"b": 2}], "c": "nan", "d": 2**70})
    assert not is_finite({"a": [1.0, {"b": NAN}]})
    assert not is_finite((-INF,))


def test_numbers_of_many_digits_are_counted() -> None:
    assert [shown(value) for value in (5, -0.5, 10**15, 10**16, 10**5000)] == [
        "5", "-0.5", "1000000000000000", "a whole number of 17 digits", "a whole number of 5001 digits",
    ]  # fmt: skip


def _profile(root: Path, settings: dict[str, Any]) -> dict[str, str]:
    path = root / "pipelines" / "profiles" / "tiny.yaml"
    path.write_text(
        yaml.safe_dump(_over(yaml.safe_load(path.read_text("utf-8")), settings), sort_keys=False), encoding="utf-8"
    )
    return {}


def _pipeline(root: Path, settings: dict[str, Any]) -> dict[str, str]:
    path = root / "pipelines" / "full.yaml"
    path.write_text(
        yaml.safe_dump({**yaml.safe_load(path.read_text("utf-8")), "settings": settings}, sort_keys=False), "utf-8"
    )
    return {"pipeline": "full"}


def _domain(root: Path, settings: dict[str, Any]) -> dict[str, str]:
    (root / "domains" / "medical" / "stages.yaml").write_text(yaml.safe_dump({"all": settings}), encoding="utf-8")
    return {}


def _manifest(root: Path, settings: dict[str, Any]) -> dict[str, str]:
    (root / "own.yaml").write_text(yaml.safe_dump({"settings": settings}), encoding="utf-8")
    return {"data": str(root / "own.yaml")}


def _over(values: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    both = {key: _over(values[key], more[key]) for key in values.keys() & more.keys() if isinstance(more[key], dict)}
    return {**values, **more, **both}


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (_profile, "profile tiny"),
        (_pipeline, "pipeline full"),
        (_domain, "domain medical; domains/medical/stages.yaml"),
        (_manifest, "manifest own.yaml"),
    ],
)
@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("dpo.epochs", 10**9, "expected more than 0 and at most 10,000; got 1000000000."),
        ("cpt.tokens", True, "expected a whole number; got True."),
        ("cpt.replay", NAN, "expected a finite number"),
        ("cpt.batch_tokens", 10**12, "expected more than 0 and at most 1,000,000,000; got 1000000000000."),
        ("cpt.tokens", -5, "expected more than 0 and at most 1,000,000,000,000,000; got -5."),
        ("cpt.train.weight_decay", 1e30, "expected a finite number of at most 1,000,000,000,000,000; got 1e+30."),
        ("evaluate.chat_template", 1, "expected true or false; got 1."),
    ],
)
def test_each_layer_is_named(
    layer: Callable[[Path, dict[str, Any]], dict[str, str]], name: str, key: str, value: Any, expected: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    for folder in ("pipelines", "domains/medical"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    settings = value
    for part in reversed(key.split(".")):
        settings = {part: settings}
    words = layer(tmp_path, settings)
    if key == "evaluate.chat_template":
        key = "exam-base.chat_template"
    with pytest.raises(ConfigError) as caught:
        resolve({"domain": "medical", **words}, tmp_path)
    message = str(caught.value)
    # Numbers that no setting takes are found where the file is read, and named by file and key.
    of_file = any(f"{file}{key}: {expected}" in message for file in ("full.yaml: settings.", "stages.yaml: all."))
    assert of_file or f"{key} ({name}): {expected}" in message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"seed": str(2**70)}, "seed (command line): expected 0 to 4,294,967,295; got"),
        ({"seed": "true"}, "seed (command line): expected a whole number; got True."),
        ({"sft.epochs": "1e400"}, "sft.epochs (command line): expected a finite number; got inf."),
        ({"sft.epochs": "nan"}, "sft.epochs (command line): expected a finite number; got 'nan'."),
        ({"run.processes": "1e12"}, "run.processes (command line): expected 1 to 1,000,000,000; got 1000000000000.0."),
        ({"model.architecture.hidden_size": "true"}, "hidden_size is True; expected a whole number"),
        ({"model.architecture.num_attention_heads": "0"}, "num_attention_heads is 0; expected a whole number from 1"),
        ({"embedded.documents_per_entity": "10000000"}, "(command line): expected 1 to 1,000;"),
        ({"run.gpu_lock": "0"}, "run.gpu_lock (command line): expected true or false; got 0."),
        ({"gate.max_general_drop": "-.1"}, "gate.max_general_drop (command line): expected 0 to 1; got -0.1."),
        ({"verify.rewards": "{exact: {weight: 1e30}}"}, "verify.rewards.exact.weight (command line): expected a"),
        ({"dpo.train.beta": "-1"}, "dpo.train.beta (command line): expected a number from 0 to 1,000, got -1."),
        ({"sft.peft": "lora", "sft.lora.r": "0"}, "sft.lora.r (command line): expected a number from 1 to 100,000"),
        ({"sft.peft": "lora", "sft.lora.lora_dropout": "2"}, "dropout (command line): expected a number from 0"),
    ],
)  # fmt: skip
def test_the_command_line(words: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"domain": "medical", **words}, REPOSITORY)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("stage", "key", "value", "expected"),
    [
        ("cpt", "epochs", 10**9, "stages.cpt.epochs: expected more than 0 and at most 10,000; got 1000000000."),
        ("cpt", "replay", -0.1, "stages.cpt.replay: expected 0 to 1; got -0.1."),
        ("cpt", "train", {"weight_decay": 1e30}, "stages.cpt.train.weight_decay: expected a finite number of at most"),
        ("dpo", "batch_pairs", True, "stages.dpo.batch_pairs: expected a whole number; got True."),
    ],
)
def test_an_edited_plan(stage: str, key: str, value: Any, expected: str, tmp_path: Path) -> None:
    path = freeze(resolve({"domain": "medical", "out": str(tmp_path)}, REPOSITORY))
    plan = json.loads(path.read_text("utf-8"))
    plan["stages"][stage][key] = value
    path.write_text(json.dumps(plan), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        thaw(path, {}, REPOSITORY)
    assert expected in str(caught.value)
