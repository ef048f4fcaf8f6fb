"""Row counts and the limits on them."""

from __future__ import annotations

import pytest

from common.config.base import Limits
from common.data.accounting import RowCount, check_limits
from common.errors import ContractError
from common.models.turns import NOT_A_PREFIX

LIMITS = Limits(dropped=0.05, truncated=0.1, masked=0.0)


def count(source: str, rows_in: int, dropped: int = 0, **facts: float) -> RowCount:
    result = RowCount(source, "sft", rows_in=rows_in)
    for _ in range(dropped):
        result.drop("empty text")
    for name, value in facts.items():
        setattr(result, name, value)
    return result


def test_as_dict_has_the_fields_of_the_manifest() -> None:
    names = "source role rows_in dropped changed truncated rows_out tokens masked_share epochs"
    assert " ".join(RowCount("a", "cpt").as_dict()) == names


def test_shares_at_the_limit_pass() -> None:
    check_limits([count("a", 100, dropped=5, truncated=9), count("unread", 0)], LIMITS, "sft")


def test_dropped_names_source_reason_share_limit_and_key() -> None:
    bad = count("bad", 100, dropped=20)
    bad.drop("exam overlap")
    with pytest.raises(ContractError) as caught:
        check_limits([count("good", 100, dropped=1), bad], LIMITS, "sft")
    message = str(caught.value)
    assert "Stage sft: 11.0% of its rows were dropped, the limit is 5.0%" in message
    assert "source 'bad' (21 of 100), reason 'empty text' (20 rows)" in message
    assert message.endswith("raise sft.limits.dropped.")


@pytest.mark.parametrize("lost", [3, 100])
def test_a_reason_of_the_template_names_the_template(lost: int) -> None:
    bad = count("bad", 100)
    bad.dropped = {NOT_A_PREFIX: lost - 1, "empty text": 1}
    with pytest.raises(ContractError, match=r"chat template may be the cause: try model\.chat_template=plain"):
        check_limits([bad], Limits(dropped=0.01), "sft")


def test_a_source_that_loses_everything_stops_even_a_large_stage() -> None:
    with pytest.raises(ContractError, match=r"source 'small' lost all its 3 rows, reason 'empty text' \(3 rows\)"):
        check_limits([count("large", 10_000), count("small", 3, dropped=3)], LIMITS, "cpt")


def test_two_accounts_of_one_source_are_judged_as_one() -> None:
    again = count("a", 1000, dropped=5)
    again.again = True
    check_limits([count("a", 1, dropped=1), again], LIMITS, "sft")
    half, rest = count("b", 100, masked_share=0.5), count("b", 300)
    for found in ([half, rest], [rest, half]):
        check_limits(found, Limits(masked=0.125), "sft")
        with pytest.raises(ContractError, match=r"12\.5% of its rows were left without one token to learn from"):
            check_limits(found, Limits(masked=0.12), "sft")


def test_replay_hides_nothing_of_the_rows_that_a_stage_lost_itself() -> None:
    counts = [count("own", 18, dropped=7), RowCount("general", "replay", rows_in=1000)]
    with pytest.raises(ContractError, match=r"38\.9% of its rows were dropped, .* source 'own' \(7 of 18\)"):
        check_limits(counts, LIMITS, "sft")
    counts = [count("own", 1000), RowCount("general", "replay", rows_in=18, dropped={"empty text": 7})]
    with pytest.raises(ContractError, match=r"^Stage sft, replay: 38\.9% of its rows were dropped"):
        check_limits(counts, LIMITS, "sft")


def test_truncated_is_a_share_of_the_rows_kept() -> None:
    message = r"10\.5% of its rows were cut .* source 'a' \(10 rows\).*cpt\.limits\.truncated"
    with pytest.raises(ContractError, match=message):
        check_limits([count("a", 100, dropped=5, truncated=10)], LIMITS, "cpt")


def test_masked_rows_stop_the_stage() -> None:
    message = r"2\.0% .* without one token .* source 'a' \(2 rows\).*sft\.limits\.masked"
    with pytest.raises(ContractError, match=message):
        check_limits([count("a", 100, masked_share=0.02)], LIMITS, "sft")
