"""The option tables read from source are those of the real classes."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import pytest

from common.config.resolve import resolve
from common.config.trl_options import (
    CLASSES,
    OLDER,
    PACKAGES,
    as_meant,
    default_option,
    needs_bitsandbytes,
    optimizers,
    options_of,
)
from common.errors import ConfigError
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - {"BitsAndBytesConfig"}))
def test_names_are_those_of_the_dataclass(name: str) -> None:
    import peft
    import trl
    import trl.experimental.orpo as orpo

    real = getattr({"LoraConfig": peft, "ORPOConfig": orpo}.get(name, trl), name)
    fields = {field.name for field in dataclasses.fields(real) if field.init and not field.name.startswith("_")}
    known = set(options_of(name))
    inherited = {"task_type", "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision"}
    allowed = {*inherited, "inference_mode"} if name == "LoraConfig" else set()
    assert fields - known <= allowed
    assert known - fields == set()


def test_the_options_of_quantisation_are_those_of_the_installed_class() -> None:
    from transformers import BitsAndBytesConfig

    parameters = inspect.signature(BitsAndBytesConfig.__init__).parameters.values()
    real = {p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"}
    assert set(options_of("BitsAndBytesConfig")) == real


def test_optimizers_of_bitsandbytes_are_known_by_their_names() -> None:
    from transformers import trainer_optimizer
    from transformers.training_args import OptimizerNames

    real = {str(getattr(name, "value", name)) for name in trainer_optimizer._BITSANDBYTES_OPTIMIZERS}
    assert {name.value for name in OptimizerNames if needs_bitsandbytes(name.value)} == real


def test_older_options_are_gone_from_some_class_of_trl() -> None:
    trainers = [name for name in CLASSES if name not in ("LoraConfig", "BitsAndBytesConfig")]
    assert [name for name in OLDER if all(name in options_of(trainer) for trainer in trainers)] == []


def test_defaults_are_those_of_the_dataclass() -> None:
    from trl import GRPOConfig, SFTConfig

    for cls, names in ((SFTConfig, ("per_device_train_batch_size", "max_length")), (GRPOConfig, ("num_generations",))):
        for name in names:
            assert default_option(cls.__name__, name) == cls.__dataclass_fields__[name].default


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("learning_rate", "2e-5", 2e-5), ("learning_rate", " 1 ", 1), ("max_steps", "1e3", 1000),
        ("max_steps", 1e3, 1000),
        ("max_steps", 1.5, 1.5), ("packing", "True", True), ("packing", "no", False), ("max_length", "None", None),
        ("max_length", "1024", 1024), ("optim", "adamw_torch", "adamw_torch"), ("learning_rate", "fast", "fast"),
        ("bf16", "true", True), ("report_to", "None", None), ("no_such_option", "5", "5"), ("eval_steps", "0.1", 0.1),
    ],
)  # fmt: skip
def test_text_is_taken_as_the_class_means_it(name: str, given: object, meant: object) -> None:
    found = as_meant("SFTConfig", name, given)
    assert (found, type(found)) == (meant, type(meant))


def test_planning_commands_import_nothing_heavy() -> None:
    code = (
        "import sys; from common.cli.main import main; main(['plan', 'domain=medical', 'out=/nonexistent/x']);"
        "main(['config', 'domain=medical']); main(['why', 'domain=medical', 'stage=sft']); main(['status']);"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'scipy', 'matplotlib', 'lm_eval'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_optimizers_are_those_of_transformers() -> None:
    from transformers.training_args import OptimizerNames

    assert set(optimizers()) == {str(name.value) for name in OptimizerNames}
    assert not [start for start in PACKAGES if not any(name.startswith(start) for name in optimizers())]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            {"cpt.train.optim": "adamww_torch"},
            r"optim \(command line\): transformers has no optimizer 'adamww_torch'\. Did you mean 'adam",
        ),
        (
            {"cpt.train.optim": "galore_adamw"},
            r"galore_adamw needs the package galore_torch, .* or use adamw_torch",
        ),
        (
            {"cpt.train.learning_rate": "inf"},
            r"cpt\.train\.learning_rate .*: expected a finite number of .*; got inf\.",
        ),
        ({"cpt.train.learning_rate": ".inf"}, r"cpt\.train\.learning_rate \(command line\): expected a finite number"),
        ({"dpo.train.loss_weights": "[1.0, .nan]"}, r"dpo\.train\.loss_weights \(command line\): expected a finite"),
        ({"merge.parameters.t": ".nan"}, r"merge\.parameters\.t \(command line\): expected a finite number; got nan"),
        ({"cpt.epochs": "inf"}, r"cpt\.epochs \(command line\): expected a finite number; got 'inf'"),
    ],
)
def test_what_cannot_train_is_told_by_plan(words: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        resolve({"domain": "medical", **words}, REPOSITORY)
