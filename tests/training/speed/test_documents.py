"""Where documents lie in packed rows, and rows of their own for them."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from common.training.speed import documents
from common.training.speed.documents import Documents, documents_of

PACKED = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0], [0, 1, 2, 3, 0, 1, 2, 3]])


def test_borders_are_where_positions_do_not_go_on() -> None:
    found = Documents(PACKED)
    assert found.borders.tolist() == [0, 3, 7, 8, 12, 16]
    assert found.longest == 4
    assert not found.alone
    assert Documents(torch.arange(8).expand(2, -1)).alone


def test_every_token_comes_back_to_its_place() -> None:
    found = Documents(PACKED)
    states_BHTD = torch.arange(2 * 3 * 8 * 2).view(2, 3, 8, 2)
    apart_NHLD = found.apart(states_BHTD)
    assert apart_NHLD.shape == (5, 3, 4, 2)
    assert torch.equal(apart_NHLD[1], states_BHTD[0, :, 3:7])
    assert torch.equal(found.together(apart_NHLD.transpose(1, 2)), states_BHTD.transpose(1, 2))


@pytest.mark.parametrize(
    ("lengths", "pays"),
    [
        ([16, 16, 16, 16], True),
        ([16, 17, 15, 16], True),
        ([32, 8, 8, 8, 8], False),  # 160 places for 64
        ([48, 16], False),  # 96 places for 64
        ([64], False),  # as it is
    ],
)
def test_rows_of_their_own_pay_for_short_documents_of_like_length(lengths: list[int], pays: bool) -> None:
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    assert Documents(positions).apart_pays == pays


def test_the_mask_shows_a_token_its_own_document_and_nothing_ahead() -> None:
    mask = Documents(torch.tensor([[0, 1, 0, 1]])).mask[0, 0]
    assert mask.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_nothing_is_kept_of_positions_that_are_gone() -> None:
    positions = torch.tensor([[0, 1, 0, 1]])
    seen = weakref.ref(positions)
    assert documents_of(positions, 1).mask.shape == (1, 1, 4, 4)
    del positions
    gc.collect()
    assert seen() is None
    assert documents._last is None


def test_positions_that_all_rows_share_are_read_for_each_of_them() -> None:
    shared = torch.tensor([[0, 1, 0, 1]])
    assert documents_of(shared, 3).borders.tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert documents_of(shared, 3) is documents_of(shared, 3)


def test_rows_of_one_token_are_documents_too() -> None:
    documents = Documents(torch.zeros(3, 1, dtype=torch.long))
    assert documents.borders.tolist() == [0, 1, 2, 3]
    assert documents.alone


BRANCHED = torch.tensor([[0, 1, 2, 3, 2, 3, 2, 0, 1, 1]])  # a prompt of two tokens and its answers, then one of one
WHOLE = [[0, 1, 2, 3], [0, 1, 4, 5], [0, 1, 6], [7, 8], [7, 9]]  # places in the row


def test_answers_that_begin_behind_a_prompt_go_on_from_it() -> None:
    found = Documents(BRANCHED)
    assert found.branches
    assert found.borders.tolist() == [0, 4, 6, 7, 9, 10]
    assert found.longest == 4
    states_BHTD = torch.arange(10).view(1, 1, 10, 1)
    apart_NHLD = found.apart(states_BHTD)
    assert [row[: len(whole)] for row, whole in zip(apart_NHLD[:, 0, :, 0].tolist(), WHOLE, strict=True)] == WHOLE
    assert torch.equal(found.together(apart_NHLD.transpose(1, 2)), states_BHTD.transpose(1, 2))
    sources, borders, places = found.whole
    assert sources.tolist() == [place for whole in WHOLE for place in whole]
    assert borders.tolist() == [0, 4, 8, 11, 13, 15]
    assert sources[places].tolist() == list(range(10))
    seen = [[place for place, shown in enumerate(row) if shown] for row in found.mask[0, 0].tolist()]
    assert seen == [
        next(whole[: whole.index(place) + 1] for whole in WHOLE if place in whole) for place in range(10)
    ]  # fmt: skip


def test_a_row_that_begins_in_the_middle_and_a_prompt_that_is_too_short_have_nothing_to_go_on_from() -> None:
    assert not Documents(torch.tensor([[3, 4, 5, 2, 3], [0, 1, 2, 3, 4]])).branches
    assert not Documents(torch.tensor([[3, 4, 5], [0, 1, 5]])).branches
    assert Documents(torch.tensor([[0, 1, 2, 3], [2, 3, 0, 1]])).branches is False


def test_long_answers_of_unlike_length_to_a_short_prompt_get_rows_of_their_own() -> None:
    answers = [torch.arange(24, 24 + length) for length in range(125, 1001, 125)]
    found = Documents(torch.cat([torch.arange(24), *answers])[None])
    assert found.branches
    assert found.longest == 1024
    assert found.apart_pays
