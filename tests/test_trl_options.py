"""The option tables read from source are those of the real classes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from common.trl_options import CLASSES, OWNED, TRL_ROWS_ONLY, options_of
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("name", sorted(CLASSES))
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


def test_owned_and_refused_options_exist_in_trl() -> None:
    known = {*options_of("SFTConfig"), *options_of("DPOConfig")}
    older = {"warmup_ratio", "no_cuda"}  # gone from transformers 5, still in many people's files
    assert {*OWNED, *TRL_ROWS_ONLY} - known == older


def test_planning_commands_import_nothing_heavy() -> None:
    code = (
        "import sys; from common.cli import main; main(['plan', 'domain=medical', 'out=/nonexistent/x']);"
        "main(['config', 'domain=medical']); main(['why', 'domain=medical', 'stage=sft']); main(['status']);"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'scipy', 'matplotlib', 'lm_eval'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
