"""Short rows first: which steps read them, that the tokens stay, and that a cut row is several rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.config.methods import PackedRows
from common.config.resolve import resolve
from common.config.schema import Config
from common.cost.outlook import Outlook
from common.errors import ConfigError
from common.training.methods.rows.length_curriculum import LengthCurriculumSettings, order, parts
from common.training.rows.packing import IGNORED, PARTS, RowCollator
from common.training.rows.positions import share_from
from tests.conftest import REPOSITORY
from tests.training.methods.conftest import Train, log
from tests.training.methods.scored import built, context


@pytest.mark.parametrize(
    ("until", "steps", "short"), [(0.2, 10, 2), (0.4, 10, 4), (0.8, 10, 8), (0.5, 3, 2), (0.1, 3, 0)]
)
def test_the_first_steps_read_short_rows(until: float, steps: int, short: int) -> None:
    settings = LengthCurriculumSettings(until=until, parts=8)
    assert [parts(step, steps, settings) for step in range(steps)] == [8] * short + [1] * (steps - short)
    packed = PackedRows(np.arange(4 * steps), np.arange(4 * steps), None, 4, seed=0)
    found, facts = order(packed, settings)
    assert np.array_equal(found, packed.order)
    assert facts == {"short_steps": short, "steps": steps}


def test_a_row_in_parts_is_what_rows_of_that_length_would_be() -> None:
    """Against a count of the positions by hand: documents of 5, 3 and 4 tokens in 16 places, in rows of 4."""
    row = {"input_ids": list(range(1, 13)), "labels": list(range(1, 13)), "seq_lengths": [5, 3, 4], PARTS: 4}
    batch = RowCollator(0, 16)([row])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [0, 0, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3], [0, 0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3]]
    learned = [[0, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]]
    assert (batch["labels"] != IGNORED).int().tolist() == learned


def test_scores_of_documents_are_cut_with_them() -> None:
    row = {"input_ids": [1] * 8, "labels": [1] * 8, "seq_lengths": [3, 5], PARTS: 2, "score/bad": [0.5, 2.0]}
    batch = RowCollator(0, 8, ("bad",))([row])
    assert batch["score/bad"].tolist() == [[0.5, 0.5, 0.5, 2.0], [2.0] * 4]


def test_the_share_of_far_positions_is_counted() -> None:
    from datasets import Dataset

    rows = Dataset.from_list([{"seq_lengths": [5, 3, 4], PARTS: 1}, {"seq_lengths": [12], PARTS: 4}])
    # positions of three or more: 2 + 0 + 1 of the first row's 12, and one in each full part of the second's 12
    assert share_from(rows, 16, 3) == pytest.approx((3 + 3) / 24)


def test_the_rows_of_a_stage_say_how_they_are_read(tokenizer: Any, config: Config, tmp_path: Path) -> None:
    asked = {"length_curriculum": {"until": 0.5, "parts": 4}}
    cut = built(context(tmp_path / "a", config, asked, tokens=1280, epochs=None), tokenizer)
    whole = built(context(tmp_path / "b", config, {}, tokens=1280, epochs=None), tokenizer)
    assert cut.dataset[PARTS] == [4] * 10 + [1] * 10  # ten steps of two rows
    assert cut.dataset["input_ids"] == whole.dataset["input_ids"]
    assert cut.methods == {"length_curriculum": {"short_steps": 5, "steps": 10}}
    assert PARTS not in whole.dataset.column_names
    batches = [RowCollator(0, 64)([cut.dataset[2 * step], cut.dataset[2 * step + 1]]) for step in (0, 9)]
    assert [tuple(batch["input_ids"].shape) for batch in batches] == [(8, 16), (2, 64)]


def test_a_model_reads_a_part_as_a_row_of_its_own(model: Any) -> None:
    """The logits of a cut row are those of its parts, each read alone."""
    ids = torch.arange(3, 35).tolist()
    batch = RowCollator(0, 32)([{"input_ids": ids, "labels": ids, "seq_lengths": [32], PARTS: 2}])
    with torch.inference_mode():
        together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        alone = [model(input_ids=torch.tensor([part])).logits[0] for part in (ids[:16], ids[16:])]
    assert torch.allclose(together, torch.stack(alone), atol=1e-5)


@pytest.mark.parametrize(("given", "length"), [({"parts": 3}, 64), ({"parts": 8}, 64), ({}, 64)])
def test_parts_that_do_not_fit_are_refused(given: dict[str, int], length: int) -> None:
    words = {"domain": "medical", "cpt.sequence_length": str(length), "cpt.methods": f"{{length_curriculum: {given}}}"}
    with pytest.raises(
        ConfigError, match=r"cpt\.methods\.length_curriculum: parts=\d does not part sequence_length=64"
    ):
        resolve(words, REPOSITORY)


def test_a_plan_counts_what_it_saves() -> None:
    words = {"domain": "medical", "cpt.sequence_length": "1024", "cpt.batch_tokens": "2048", "run.hardware": "h100-sxm"}
    outlook = Outlook.of(resolve(words | {"cpt.methods": "{length_curriculum: {until: 0.5, parts: 4}}"}, REPOSITORY))
    work = outlook.settings["cpt"].work
    assert work is not None
    assert work.looked_at == 0.5 * 256 + 0.5 * 1024
    memory, time = outlook.added("cpt", "length_curriculum") or (1.0, 1.0)
    assert memory == 0  # the long part needs as much as without it
    assert time < 0


@pytest.mark.slow
def test_a_training_reads_short_rows_first(train: Train) -> None:
    """That it goes on where it was killed, and with two processes, is tested with all methods (test_applied)."""
    made = train(**{"cpt.methods.length_curriculum.until": 0.5})
    measured = made.manifest["metrics"]["methods"]["length_curriculum"]["measured"]
    assert measured == {"short_steps": 4, "steps": 8}
    assert len(log(made)) == 8
