"""Sources that a stage cannot use are named by the plan, by their columns alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.config.resolve import resolve
from common.engine.plan import make_plan
from common.errors import DataError
from tests.conftest import REPOSITORY

CHAT = {"id": "faq", "role": "sft", "row": {"question": "What is a spade used for?", "answer": "It cuts turf."}}
TEXT = {"id": "notes", "role": "cpt", "heldout": 0.5, "row": {"text": "A spade cuts turf."}}
LABELLED = {"id": "kto", "role": "preference", "row": {"prompt": "Is it?", "completion": "Yes.", "label": True}}


def check(folder: Path, pipeline: str, *sources: dict[str, Any], tasks: str = "[]", **settings: Any) -> None:
    for source in sources:
        (folder / f"{source['id']}.jsonl").write_text(json.dumps(source["row"]) + "\n", encoding="utf-8")
    listed = [
        {"path": f"{source['id']}.jsonl", "licence": "mit"} | {key: source[key] for key in source if key != "row"}
        for source in sources
    ]
    manifest = {"title": "Own", "sources": listed, "settings": settings}
    (folder / "data.yaml").write_text(json.dumps(manifest), encoding="utf-8")
    given = {"domain": "medical", "data": str(folder / "data.yaml"), "pipeline": pipeline, "out": str(folder)}
    given |= {"model.path": "owner/name", "model.revision": "0" * 40, "evaluate.tasks": tasks}
    plan = make_plan(resolve(given, REPOSITORY))
    plan.check()


def test_an_exam_that_would_ask_nothing_is_told_before_the_base(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^There is nothing to ask in an exam.*heldout: 0\.05.* evaluate\.tasks="):
        check(tmp_path, "sft-only", CHAT)
    check(tmp_path, "sft-only", CHAT, tasks="[arc_easy]")


def test_single_answers_are_for_kto_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Stage dpo: source 'kto' has single answers with a label; only kind kto"):
        check(tmp_path, "dpo-only", LABELLED, TEXT)


def test_a_source_that_no_part_of_a_preset_names_is_told(tmp_path: Path) -> None:
    texts = [TEXT | {"id": name, "heldout": 0} for name in ("notes", "more", "exercises")]
    mixture: dict[str, Any] = {"preset": "problems", "parts": {"corpus": ["notes"], "problems": ["exercises"]}}
    own = {"mixture": mixture}
    with pytest.raises(DataError, match=r"cpt\.mixture: the source 'more' is in no part of the preset problems, so it"):
        check(tmp_path, "cpt-only", *texts, tasks="[arc_easy]", cpt=own)
    mixture["parts"]["corpus"] = ["notes", "mere"]
    with pytest.raises(DataError, match="which is no source of the role cpt"):
        check(tmp_path, "cpt-only", *texts, tasks="[arc_easy]", cpt=own)


@pytest.mark.parametrize("mixture", ["temperature=2", "most_epochs=4", "shares={notes: 1}"])
def test_a_stage_whose_rows_another_makes_mixes_no_sources(mixture: str) -> None:
    key, value = mixture.split("=")
    words = {"domain": "medical", "profile": "tiny", "pipeline": "pcp", f"prompted.mixture.{key}": value}
    with pytest.raises(DataError, match=r"^prompted\.mixture is for sources of the data, and a stage before this one"):
        make_plan(resolve(words, REPOSITORY)).check()
