"""Which roles a stage trains on, by its share of replay, whoever packs the rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.config.stages import CptSettings
from common.data.accounting import RowCount
from common.models.tokenizer import train_tokenizer
from common.stage import StageContext, data_roles
from common.training.rows.rows import build_rows


class Corpus:
    """Forty texts of every role, each of which names its role."""

    def rows(self, role: str) -> Iterator[dict[str, Any]]:
        return iter({"text": f"{role} has a text of number {number}", "source": role} for number in range(40))

    def counts(self, role: str) -> dict[str, RowCount]:
        return {}

    def exam_roles(self, role: str) -> tuple[str, ...]:
        return ()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["cpt has a text of number one, and replay has one too"], 300, 256)


@pytest.mark.parametrize("packing", ["isolated", "trl"])
@pytest.mark.parametrize(("replay", "roles"), [(0.0, {"cpt"}), (0.25, {"cpt", "replay"}), (1.0, {"replay"})])
def test_rows_are_of_the_roles_that_the_recipe_lists(
    packing: str, replay: float, roles: set[str], tokenizer: Any, tmp_path: Path
) -> None:
    settings = CptSettings.model_validate(
        {"packing": packing, "replay": replay, "tokens": 2048, "batch_tokens": 256, "sequence_length": 64}
    )
    context = cast(StageContext, SimpleNamespace(
        corpus=Corpus(), config=SimpleNamespace(seed=0), stage="cpt", settings=settings, work=tmp_path, inputs={},
    ))  # fmt: skip
    rows = build_rows(context, tokenizer, role="cpt", assistant_only=False)
    assert {count.role for count in rows.counts} == roles
    assert roles == set(data_roles("cpt", cast(Any, Corpus()), settings, sampled=False)) & {"cpt", "replay"}
    trained = [tokenizer.decode(row["input_ids"]) for row in rows.dataset]
    assert {role for role in ("cpt", "replay") for text in trained if f"{role} has" in text} == roles
