"""The digest of a stage's code: what it does counts, how it is described does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.config.blocks import checked
from common.config.cleaning import DataSettings
from common.engine import code
from common.engine.code import code_of, read_source
from common.store import cache
from tests.conftest import REPOSITORY

SOURCE = '''"""What it does."""
from common.stage import data_roles
class A:
    """A class."""
    def f(self, x):
        """A function."""
        # why
        return x + 1
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("# why", "# another reason", True),
        ("        # why\n", "", True),
        ("A function.", "Another text.", True),
        ('"""What it does."""\n', "", True),
        ("return x + 1", "return (x\n            + 1)", True),
        ("x + 1", "x + 2", False),
        ("x + 1", "'A function.'", False),
        ("def f", "def g", False),
    ],
)
def test_comments_docstrings_and_layout_are_no_part_of_a_digest(old: str, new: str, same: bool) -> None:
    changed = SOURCE.replace(old, new)
    assert changed != SOURCE
    assert (read_source(changed.encode())[0] == read_source(SOURCE.encode())[0]) is same
    assert read_source(changed.encode())[1] == ["common.stage", "common.stage.data_roles"]


def test_source_files_are_read_again_only_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later process finds the digests in the user's cache; a file that has changed is read again."""
    stage = tmp_path / "common" / "stages" / "card.py"
    stage.parent.mkdir(parents=True)
    stage.write_text(SOURCE, encoding="utf-8")
    read = []

    def watched(source: bytes) -> tuple[str, list[str]]:
        read.append(source)
        return read_source(source)

    monkeypatch.setattr(code, "read_source", watched)

    def in_a_new_process() -> str:
        code.code_of_module.cache_clear()
        code._read_cache.cache_clear()
        code._path_of.cache_clear()
        return str(code_of("card", tmp_path)["digest"])

    first = in_a_new_process()
    assert in_a_new_process() == first
    assert len(read) == 1
    stage.write_text(SOURCE.replace("x + 1", "x + 2"), encoding="utf-8")
    os.utime(stage, ns=(0, 0))
    assert in_a_new_process() != first
    assert len(read) == 2
    cache.write(code._cache_name(tmp_path), {"common/stages/card.py": ["damaged", 1, 2]})
    in_a_new_process()
    assert len(read) == 3
    code.code_of_module.cache_clear()


def test_code_that_rows_come_from_is_part_of_a_stage_that_reads_them() -> None:
    files = code_of("cpt", REPOSITORY)["files"]
    assert {"common/stages/cpt.py", "common/data/manifest/manifest.py", "common/training/fit.py"} <= files.keys()
    assert "common/errors.py" not in files


def test_forms_and_blocks_are_part_of_the_code_that_they_make_rows_for() -> None:
    """They are found in a registry, so that no module imports them by name."""
    tokens = code.code_of_module("common.training.rows.prepared", REPOSITORY, reads_rows=True)["files"]
    assert {"common/data/forms/qa.py", "common/data/forms/interlinear.py"} <= tokens.keys()
    settings = DataSettings(role="sft", blocks=checked([{"format_alignment": {"checkpoint": "x", "keep_all": True}}]))
    cleaning = code_of("clean", REPOSITORY, settings)["files"]
    assert {"common/data/blocks/format_alignment.py", "common/data/dependence.py"} <= cleaning.keys()
    assert "common/data/blocks/pii.py" not in cleaning


def test_rows_do_not_depend_on_code_that_only_plans() -> None:
    """A reworded refusal makes no corpus be tokenised again, and no stopped cleaning begin again."""
    planning = {"common/config/continued.py", "common/config/methods.py"}
    tokens = code.code_of_module("common.training.rows.prepared", REPOSITORY, reads_rows=True)["files"]
    assert not planning & tokens.keys()
    assert not planning & code_of("clean", REPOSITORY)["files"].keys()


def test_labels_do_not_depend_on_code_that_trains_or_reports() -> None:
    files = code_of("label", REPOSITORY)["files"]
    assert {"common/evaluation/exam.py", "common/evaluation/sitting.py"} <= files.keys()
    others = ("stages/evaluate", "training/callbacks", "training/patches", "training/tracking/reporter")
    assert not {f"common/{name}.py" for name in others} & files.keys()
