"""Asked shares become an order of rows: exact to a row, capped, in phases, the same for a seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from common.config.mixture import CurriculumSettings, MixtureSettings
from common.config.stages import CptSettings
from common.errors import DataError
from common.training.rows.mixture import divided, mixed_order, replay_by_phase, shares_of, with_replay

SIZES = {"web": 900, "books": 100, "code": 10}


def of(**values: object) -> MixtureSettings:
    return MixtureSettings.model_validate(values)


def counted(order: np.ndarray, sizes: dict[str, int]) -> Counter[str]:
    ends = np.cumsum(list(sizes.values()))
    return Counter(list(sizes)[place] for place in np.searchsorted(ends, order, side="right"))


@given(
    sizes=st.dictionaries(st.sampled_from("abcde"), st.integers(1, 200), min_size=1),
    total=st.integers(1, 2000),
    temperature=st.floats(1, 20),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_shares_are_met_to_a_row_and_no_row_comes_again_before_all_have_come(
    sizes: dict[str, int], total: int, temperature: float, seed: int
) -> None:
    chosen = of(temperature=temperature)
    order, facts = mixed_order(sizes, total=total, settings=chosen, seed=seed)
    assert len(order) == total
    found, shares = counted(order, sizes), shares_of(sizes, chosen)
    assert all(abs(found[name] - share * total) <= 1 for name, share in shares.items())
    times = np.bincount(order, minlength=sum(sizes.values()))
    start = 0
    for name, size in sizes.items():
        own = times[start : start + size]
        assert own.max() - own.min() <= 1
        assert facts[name]["real"] == pytest.approx(found[name] / total, abs=1e-6)
        start += size
    again, _ = mixed_order(sizes, total=total, settings=chosen, seed=seed)
    assert (order == again).all()


def test_temperature_evens_shares_out() -> None:
    usual, even = shares_of(SIZES, of()), shares_of(SIZES, of(temperature=100))
    assert usual["web"] == pytest.approx(900 / 1010)
    assert max(even.values()) - min(even.values()) < 0.05
    half = shares_of({"a": 100, "b": 400}, of(temperature=2))
    assert half == pytest.approx({"a": 1 / 3, "b": 2 / 3})


def test_named_shares_hold_and_others_divide_the_rest() -> None:
    found = shares_of(SIZES, of(shares={"code": 0.5}))
    assert found == pytest.approx({"code": 0.5, "web": 0.45, "books": 0.05})
    assert shares_of({"a": 1}, of(shares={"a": 0.4})) == {"a": 1.0}  # nobody else is there


def test_a_cap_gives_to_the_others() -> None:
    order, facts = mixed_order(SIZES, total=1000, settings=of(shares={"code": 0.5}, most_epochs=2), seed=0)
    assert counted(order, SIZES) == {"code": 20, "web": 882, "books": 98}
    assert facts["code"] == {"asked": 0.5, "real": 0.02, "epochs": 2.0}
    with pytest.raises(DataError, match=r"cpt.mixture: its sources can give 1,010 of 5,000 rows within most_epochs"):
        mixed_order(SIZES, total=5000, settings=of(most_epochs=1), seed=0, stage="cpt")


def test_phases_follow_each_other() -> None:
    phases = [{"until": 0.75, "shares": {"web": 1}}, {"until": 1, "shares": {"books": 0.5, "code": 0.5}}]
    order, facts = mixed_order(SIZES, total=400, settings=of(phases=phases), seed=0)
    assert counted(order[:300], SIZES) == {"web": 300}
    assert counted(order[300:], SIZES) == {"books": 50, "code": 50}
    assert {name: fact["asked"] for name, fact in facts.items()} == {"web": 0.75, "books": 0.125, "code": 0.125}


def test_a_source_goes_on_in_the_next_phase_where_it_stopped() -> None:
    phases = [{"until": 0.5, "shares": {"a": 1}}, {"until": 1, "shares": {"a": 1}}]
    order, _ = mixed_order({"a": 10}, total=10, settings=of(phases=phases), seed=0)
    assert sorted(order) == list(range(10))


@given(total=st.integers(0, 300), left=st.lists(st.integers(0, 200), min_size=3, max_size=3))
@settings(max_examples=80, deadline=None)
def test_division_uses_all_and_never_too_much(total: int, left: list[int]) -> None:
    room = dict(zip("abc", map(float, left), strict=True))
    shares = {"a": 0.6, "b": 0.3, "c": 0.1}
    if total > sum(left):
        with pytest.raises(DataError):
            divided(total, shares, room)
        return
    found = divided(total, shares, room)
    assert sum(found.values()) == total
    assert all(found[name] <= room[name] for name in found)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shares": {"a": 0.7, "b": 0.4}}, "add up to 1.1; expected at most 1"),
        ({"phases": [{"until": 1, "shares": {"a": 0.5}}]}, "add up to 0.5; expected 1"),
        ({"phases": [{"until": 0.5, "shares": {"a": 1}}]}, "expected growing shares of the steps"),
        ({"phases": [{"until": 1, "shares": {"a": 1}}], "temperature": 2}, "phases have shares of their own"),
        ({"temperature": 0.5}, "greater than or equal to 1"),
        ({"phases": [{"until": 1}]}, "a phase needs shares, or replay"),
        (
            {"phases": [{"until": 0.5, "replay": 0.1}, {"until": 1, "shares": {"a": 1}}]},
            "some phases say replay and some",
        ),
        ({"phases": [{"until": 1, "replay": 1}]}, "all phases are replay alone; set replay=1"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MixtureSettings.model_validate(values)


def test_an_unknown_source_is_named() -> None:
    with pytest.raises(DataError, match=r"cpt.mixture names 'wob', which has no rows here. Did you mean 'web'\?"):
        mixed_order(SIZES, total=10, settings=of(shares={"wob": 0.5}), seed=0, stage="cpt")


@pytest.mark.parametrize("total", [700, 1010, 2500])
def test_a_curriculum_goes_up_in_every_pass_and_shares_hold_at_every_point(total: int) -> None:
    asked = of(shares={"books": 0.25}, curriculum={"by": "length"})
    order, facts = mixed_order(SIZES, total=total, settings=asked, seed=0)
    ends = np.cumsum(list(SIZES.values()))
    owners = np.searchsorted(ends, order, side="right")
    for number, size in enumerate(SIZES.values()):
        own = order[owners == number]
        assert (np.diff(own) <= 0).sum() == -(-len(own) // size) - 1  # it begins again with each pass, and else grows
    for stop in (total // 7, total // 2, total):
        assert abs((owners[:stop] == 1).sum() - 0.25 * stop) <= 2
    assert facts["books"]["real"] == pytest.approx(0.25, abs=1 / total)
    again, _ = mixed_order(SIZES, total=total, settings=asked, seed=0)
    assert (again == order).all()


def test_a_curriculum_goes_on_in_the_next_phase() -> None:
    phases = [{"until": 0.5, "shares": {"a": 1}}, {"until": 1, "shares": {"a": 0.5, "b": 0.5}}]
    order, _ = mixed_order({"a": 15, "b": 5}, total=20, settings=of(phases=phases, curriculum={}), seed=0)
    assert order[:10].tolist() == list(range(10))
    assert [place for place in order if place < 15] == list(range(15))
    assert [place for place in order if place >= 15] == list(range(15, 20))


@pytest.mark.parametrize(
    ("values", "phrase"),
    [
        ({}, "rows that are shortest to those that are longest"),
        ({"direction": "descending"}, "rows that are longest to those that are shortest"),
        ({"by": "perplexity"}, "rows that are lowest in perplexity to those that are highest in perplexity"),
    ],
)
def test_a_curriculum_says_what_it_does(values: dict[str, str], phrase: str) -> None:
    found = CurriculumSettings.model_validate(values).phrase
    assert found == f"every pass over a source goes roughly from the {phrase}"


CAREBOT = [{"until": 0.8, "replay": 0.95}, {"until": 1, "replay": 0.5}]  # general to domain 19:1, then 1:1


def test_phases_of_replay_make_their_own_share_of_each_phase() -> None:
    """Replay stands at random places within each phase, and own rows, shared by size, keep their order and shares."""
    chosen = of(phases=CAREBOT)
    assert chosen.replay == pytest.approx(0.8 * 0.95 + 0.2 * 0.5)
    phases = replay_by_phase(chosen, 1000)
    assert phases == [(800, 760), (200, 100)]
    ends = [40, 140]
    mixed, facts = mixed_order(SIZES, total=140, settings=chosen, seed=0, ends=ends)
    number = sum(SIZES.values())
    order = with_replay(mixed, number, 300, total=1000, seed=0, phases=phases)
    is_replay = order >= number
    assert (is_replay[:800].sum(), is_replay[800:].sum()) == (760, 100)
    assert abs(is_replay[:400].sum() - 380) < 15
    assert order[~is_replay].tolist() == mixed.tolist()
    for part, size in ((mixed[:40], 40), (mixed[40:], 100)):
        assert abs(counted(part, SIZES).get("web", 0) - 900 / 1010 * size) <= 1
    assert facts["web"]["asked"] == pytest.approx(900 / 1010, abs=1e-5)
    times = np.bincount(order[is_replay] - number, minlength=300)
    assert times.max() - times.min() <= 1  # passes over replay go on from phase to phase


def test_without_phases_of_replay_the_order_is_what_it_was() -> None:
    assert replay_by_phase(of(), 100) == replay_by_phase(of(phases=[{"until": 1, "shares": {"a": 1}}]), 100) == []
    own = np.arange(60)
    one = with_replay(own, 60, 30, total=100, seed=3)
    assert (one == with_replay(own, 60, 30, total=100, seed=3, phases=[(100, 40)])).all()


def test_what_asked_for_shares_counts_by_the_rows_that_replay_leaves() -> None:
    phases = [{"until": 0.5, "shares": {"web": 1}, "replay": 0.9}, {"until": 1, "shares": {"books": 1}, "replay": 0.1}]
    _, facts = mixed_order(SIZES, total=100, settings=of(phases=phases), seed=0, ends=[10, 100])
    assert {name: facts[name]["asked"] for name in ("web", "books")} == {"web": 0.1, "books": 0.9}
    assert {name: facts[name]["real"] for name in ("web", "books")} == {"web": 0.1, "books": 0.9}


def test_sources_are_read_whole_where_a_phase_shares_by_size() -> None:
    assert of(phases=CAREBOT).by_size(["a", "b"]) == {"a", "b"}
    assert of(phases=CAREBOT).by_size(["a"]) == set()


def test_a_stage_takes_its_share_of_replay_from_the_phases() -> None:
    made = CptSettings.model_validate({"tokens": 2048, "replay": 0.3, "mixture": {"phases": CAREBOT}})
    assert made.replay == pytest.approx(0.86)
    assert CptSettings.model_validate(made.model_dump()) == made
    with pytest.raises(ValidationError, match="expected growing shares"):
        CptSettings.model_validate({"tokens": 2048, "mixture": {"phases": [{"until": 0.5, "replay": 0.1}]}})
