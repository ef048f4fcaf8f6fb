"""Paragraphs are shown as both prompts that the model gets, without those that are kept to measure by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from common.config.resolve import resolve
from common.config.rl_pretrain import RlPretrainSettings
from common.console import Console
from common.engine.preview.paragraphs import EXAMPLE, paragraph_rows
from common.errors import DataError
from common.models.tokenizer import train_tokenizer
from common.stage import StageContext
from tests.conftest import REPOSITORY
from tests.data.rows_only import RowsOnly


class Corpus(RowsOnly):
    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        for number in range(12):
            yield {"text": f"Sum {number} is given here so that a reader may learn what it is.", "source": "sums"}
        yield {"text": "Too short.", "source": "sums"}


def test_both_prompts_of_a_paragraph_are_shown(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["what is given here so that a reader may learn"] * 5, 330, 256)
    settings = RlPretrainSettings.model_validate(
        {
            "chat": False, "watch": {"prompts": 8}, "mask": {"prompt": "Hide: {paragraph}"},
            "predict": {"prompt": "{masked} Hidden:"}, "paragraphs_per_step": 2, "random_words": 1,
        }
    )  # fmt: skip
    config = resolve({"domain": "medical"}, REPOSITORY).config
    context = StageContext(
        "rl_pretrain", "rl_pretrain", settings, config, {}, None, cast(Any, Corpus()), tmp_path, tmp_path, tmp_path,
        Console("quiet"),
    )  # fmt: skip
    preview = paragraph_rows(context, tokenizer, at=2, number=2)
    assert preview.title == "rl_pretrain: rows 2 to 3 of 4"
    asked, hidden = preview.views[0].parts
    assert [part.title for part in (asked, hidden)] == ["prompt for a mask", "prompt for a prediction"]
    assert hidden.notes[0].startswith("hidden: '")
    assert EXAMPLE in preview.notes
    assert "8 more paragraphs never train: the stage is measured on them" in preview.notes
    assert [reject.reason for reject in preview.rejects] == ["shorter than least_words"]
    few = settings.model_copy(update={"watch": settings.watch.model_copy(update={"prompts": 12})})
    with pytest.raises(DataError, match="Stage rl_pretrain: the role cpt has no usable row"):
        paragraph_rows(context.__class__(**{**vars(context), "settings": few}), tokenizer, at=1, number=1)
