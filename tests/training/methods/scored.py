"""A corpus of texts with scores, and a stage of CPT over it, for methods that go by a score.

Usage: `rows = build_rows(context(folder, config, {"unlikelihood": {"by": "bad"}}), tokenizer, ...)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from common.config.schema import Config
from common.config.stages import CptSettings
from common.console import Console
from common.stage import StageContext
from common.training.rows.rows import TrainingRows, build_rows
from tests.data.rows_only import RowsOnly

NUMBER = 120


class Scored(RowsOnly):
    """Texts of two lines, every third of them with the score 1, the others with 0.1; replay has no score."""

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        for number in range(NUMBER if role == "cpt" else 40):
            bad = number % 3 == 0
            own = f"{'bad ' * 3 if bad else 'nice ' * 3}number {number}\n{'and more words ' * 3}"
            row: dict[str, Any] = {"text": own, "source": "book"} if role == "cpt" else {"text": "plain words"}
            row.setdefault("source", "old")
            scores = {"scores": {"bad": 1.0 if bad else 0.1}, "line_scores": {"bad": [1.0 if bad else 0.1, 0.1]}}
            yield row | (scores if role == "cpt" else {})

    def conversations(self, role: str) -> dict[str, bool]:
        return {"book" if role == "cpt" else "old": False}


def context(
    folder: Path, config: Config, methods: Mapping[str, Any], corpus: Any = None, **settings: Any
) -> StageContext:
    plain = {"batch_tokens": 128, "sequence_length": 64, "epochs": 1, "precision": "float32"}
    made = CptSettings.model_validate({**plain, "methods": methods, **settings})
    folder.mkdir(exist_ok=True)
    corpus = cast(Any, corpus or Scored())
    return StageContext("cpt", "cpt", made, config, {}, None, corpus, folder, folder, folder, Console("quiet"))


def built(given: StageContext, tokenizer: Any) -> TrainingRows:
    return build_rows(given, tokenizer, role="cpt", assistant_only=False)
