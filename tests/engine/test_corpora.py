"""What a run's own data lack is named with the pipelines that need none of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.config.resolve import resolve
from common.data.corpus import Corpus
from common.engine.corpora import open_corpus
from common.errors import DataError
from tests.conftest import REPOSITORY

ROWS = {
    "sft": {"question": "What is a peat spade used for?", "answer": "It cuts turf."},
    "preference": {"prompt": "What is a kite used for?", "chosen": "It measures wind.", "rejected": "No idea."},
}


@pytest.mark.parametrize(
    ("role", "names"),
    [("sft", "sft-only"), ("preference", "dpo-only kto-only"), ("both", "dpo-only kto-only sft-only")],
)
def test_missing_rows_are_named_with_the_pipelines_that_need_none(role: str, names: str, tmp_path: Path) -> None:
    sources = []
    for name, row in ROWS.items():
        if role in (name, "both"):
            (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
            sources.append({"id": name, "role": name, "path": f"{name}.jsonl", "licence": "mit"})
    manifest = tmp_path / "data.yaml"
    manifest.write_text(json.dumps({"title": "Tools", "sources": sources}), encoding="utf-8")
    resolved = resolve(
        {"domain": "medical", "pipeline": "full", "data": str(manifest), "out": str(tmp_path)}, REPOSITORY
    )
    with pytest.raises(DataError) as caught:
        open_corpus(resolved)
    told = f"Add one with role: cpt, or take a pipeline that these data have rows for: {', '.join(names.split())}."
    assert told in str(caught.value)


def test_a_stage_that_reads_replay_alone_needs_that_role_and_not_its_own(tmp_path: Path) -> None:
    rows = {"cpt": {"text": "Peat spades cut turf."}, "replay": ROWS["sft"], "sft": ROWS["sft"]}
    sources = {role: {"id": role, "role": role, "path": f"{role}.jsonl", "licence": "mit"} for role in rows}
    for role, row in rows.items():
        (tmp_path / f"{role}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    manifest = tmp_path / "data.yaml"

    def opened(*roles: str) -> Corpus:
        manifest.write_text(json.dumps({"title": "T", "sources": [sources[role] for role in roles]}), encoding="utf-8")
        words = {"domain": "medical", "pipeline": "uda", "data": str(manifest), "out": str(tmp_path)}
        return open_corpus(resolve(words, REPOSITORY))

    assert opened("cpt", "replay").conversations("replay") == {"replay": True}
    with pytest.raises(DataError, match=r"no enabled source has rows for replay\. Add one with role: replay"):
        opened("cpt", "sft")
