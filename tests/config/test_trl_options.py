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
    OWNED,
    PACKAGES,
    TRL_ROWS_ONLY,
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


def test_owned_and_refused_options_exist_in_trl() -> None:
    known = {*options_of("SFTConfig"), *options_of("DPOConfig")}
    older = {"warmup_ratio", "no_cuda"}  # gone from transformers 5, still in many people's files
    assert {*OWNED, *TRL_ROWS_ONLY} - known == older


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
            r"adamww_torch: transformers has no such optimizer\. Did you mean 'adam",
        ),
        (
            {"cpt.train.optim": "galore_adamw"},
            r"galore_adamw needs the package galore_torch, .* or use adamw_torch",
        ),
        ({"cpt.train.fsdp": "full_shard"}, r"cpt\.train\.fsdp is derived here; set run\.parallelism=fsdp2"),
        ({"cpt.train.deepspeed": "x.json"}, r"cpt\.train\.deepspeed is derived here; set run\.parallelism=zero3"),
    ],
)
def test_what_cannot_train_is_told_by_plan(words: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        resolve({"domain": "medical", **words}, REPOSITORY)
