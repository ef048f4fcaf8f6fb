"""Which files of exams and checkpoints are code that needs consent, and that they stay as they were checked."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from common.config.resolve import resolve
from common.engine.fingerprint import task_folders
from common.engine.preflight.domain_code import check_code, exam_folders
from common.engine.preflight.settings import check_settings
from common.errors import ConfigError
from tests.conftest import REPOSITORY
from tests.engine.preflight.own_code import ALLOW, forget, resolved


@pytest.mark.parametrize(
    ("name", "text", "is_code"),
    [
        ("benchmarks.yaml", "group: mine_benchmarks\ntask: [arc_easy]\nmetadata: {version: 1}\n", False),
        ("task.yaml", "task: t\ndoc_to_text: !function helper.text\n", True),
        ("task.yaml", "task: t\nprocess_docs: !function os.system\n", True),
        ("task.yaml", "task: t\ndoc_to_text: '{{ cycler }}'\n", True),
        ("task.yaml", 'task: t\ndoc_to_text: "\\x7b\\x7b cycler }}"\n', True),
        ("task.yaml", "task: t\ndataset_path: ./script\n", True),
        ("task.yaml", "task: t\nmetric_list: [{metric: someone/metric}]\n", True),
        ("group.yaml", "group: g\ntask: [{task: t, doc_to_text: '{{ cycler }}'}]\n", True),
        ("group.yaml", "group: g\ntask: [!function os.system]\n", True),
        ("below/helper.py", "", True),
        ("below/__init__.py", "", True),
        ("conftest.py", "", True),
        ("x.pth", "import os", True),
        ("helper.pyc", "", True),
        ("_template", "a: 1", True),
        ("rows.jsonl", "", False),
        (".hidden.py", "", False),
    ],
)  # fmt: skip
def test_task_files_that_hold_code_need_consent(name: str, text: str, is_code: bool, mine: Path) -> None:
    path = mine / "eval" / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text, encoding="utf-8")
    overrides = {"pipeline": "demonstration", "evaluate.tasks": "[arc_easy]"}
    check_settings(resolved(mine, pipeline="demonstration"))  # no exam reads these files
    if is_code:
        with pytest.raises(
            ConfigError, match=rf"not part of the package: eval/{re.escape(name)}, rewards\.py of .*Read it"
        ):
            check_settings(resolved(mine, **overrides))
        check_settings(resolved(mine, **overrides, **ALLOW))
    else:
        check_settings(resolved(mine, **overrides))
    folders = exam_folders(task_folders(run := resolved(mine, **overrides)), run)
    assert (folders[-1] / name).is_file() != name.startswith(".")


def test_exam_folders_are_as_they_were_checked(mine: Path) -> None:
    """A list of tasks needs no consent, and becomes no code behind the check."""
    overrides = {"pipeline": "demonstration", "evaluate.tasks": "[mine_benchmarks]"}
    check_code(resolved(mine, **overrides))
    (mine / "eval" / "benchmarks.yaml").write_text("task: t\ndoc_to_text: !function os.system\n", encoding="utf-8")
    run = resolved(mine, **overrides)
    with pytest.raises(ConfigError, match=r"this run may not execute rewards\.py, eval/benchmarks\.yaml"):
        exam_folders(task_folders(run), run)


CHECKPOINT = {
    "modeling.py": "", "below/part.py": "", "custom_generate/generate.py": "",
    "config.json": '{"model_type": "mine", "auto_map": {"AutoConfig": "modeling.A"}}', "model.safetensors": "",
    "tokenizer_config.json": '{"auto_map": {"AutoTokenizer": ["modeling.T", null]}}',
}  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path, no_consents: None) -> Path:
    for name, text in CHECKPOINT.items():
        (tmp_path / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "given" / name).write_text(text, encoding="utf-8")
    return tmp_path / "given"


def test_a_checkpoints_own_code_needs_consent_whoever_asks_for_it(checkpoint: Path, tmp_path: Path, mine: Path) -> None:
    named = (
        r"not part of the package: below/part\.py, config\.json: auto_map, custom_generate/generate\.py, modeling\.py, "
        rf"tokenizer_config\.json: auto_map of the checkpoint {checkpoint} \(digest"
    )
    trusted = {"model.path": str(checkpoint), "model.trust_remote_code": "true", "out": str(tmp_path / "out")}
    run = resolve({"domain": "medical", **trusted}, REPOSITORY)
    with pytest.raises(ConfigError, match=named):
        check_code(run)
    check_code(resolve({"domain": "medical", **trusted, "run.allow_code": "medical"}, REPOSITORY))
    forget()
    check_code(run)
    stages = mine / "stages.yaml"
    text = stages.read_text("utf-8").replace("all:\n", "all:\n  model: {trust_remote_code: true}\n", 1)
    stages.write_text(text, encoding="utf-8")
    by_domain = resolved(mine, pipeline="demonstration", **{"model.path": str(checkpoint)})
    assert not by_domain.config.model.trust_remote_code  # which it gave to no checkpoint in particular
    with pytest.raises(ConfigError, match=named):
        check_code(resolved(mine, pipeline="demonstration", **trusted))  # of the other domain


@pytest.mark.parametrize("name", sorted({*CHECKPOINT, "new.py"} - {"model.safetensors"}))
def test_a_changed_file_of_a_checkpoint_asks_anew(name: str, checkpoint: Path, tmp_path: Path) -> None:
    trusted = {"model.path": str(checkpoint), "model.trust_remote_code": "true", "out": str(tmp_path / "out")}
    run = resolve({"domain": "medical", **trusted, "run.allow_code": "medical"}, REPOSITORY)
    check_code(run)
    text = CHECKPOINT.get(name, "")
    (checkpoint / name).write_text(text.replace("modeling.", "other.") if text else "pass", encoding="utf-8")
    with pytest.raises(
        ConfigError, match=rf"It is not what you allowed on .*{re.escape(name)}(: auto_map)? \((changed|new)\)"
    ):
        check_code(replace(run, consent=None))
