"""Shares of papers by name: what they are, how a stage fills their parts, and what becomes of them."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from common.config.mixture import MixtureSettings
from common.config.mixture_presets import PRESETS
from common.training.rows.mixture import mixed_order, shares_of
from tests.conftest import REPOSITORY

SIZES = {"wiki-zh": 40, "wiki": 300, "books": 100}
BILINGUAL: dict[str, Any] = {"preset": "syne-bilingual", "parts": {"zh": ["wiki-zh"], "en": ["wiki", "books"]}}


def of(**values: Any) -> MixtureSettings:
    return MixtureSettings.model_validate(values)


def test_the_shares_of_the_papers() -> None:
    assert PRESETS["syne-bilingual"].shares == {"zh": 0.2, "en": 0.8}  # zh : en = 2 : 8
    assert PRESETS["syne-synthetic"].shares == {"zh": 0.1, "en": 0.7, "synthetic": 0.2}  # 1 : 7 : 2
    assert PRESETS["problems"].shares == {"corpus": 0.3, "problems": 0.7}  # 3 : 7
    for name, preset in PRESETS.items():
        assert math.fsum(preset.shares.values()) == pytest.approx(1), name
        assert "arXiv" in preset.paper
        assert bool(preset.ours) == ("code" in preset.shares)  # which the paper does not give


def test_the_page_has_each_of_them() -> None:
    page = (
        (REPOSITORY / "docs" / "cleaning-data.md").read_text("utf-8").partition("| `preset:` |")[2].partition("\n\n")[0]
    )
    assert {name for row in page.splitlines()[2:] for name in re.findall(r"`([\w-]+)`", row.split("|")[1])} == {
        *PRESETS
    }


def test_sources_of_a_part_divide_its_share_by_what_they_hold() -> None:
    chosen = of(**BILINGUAL)
    assert shares_of(SIZES, chosen) == pytest.approx({"wiki-zh": 0.2, "wiki": 0.6, "books": 0.2})
    order, facts = mixed_order(SIZES, total=1000, settings=chosen, seed=0)
    ends = np.cumsum(list(SIZES.values()))
    counted = Counter(list(SIZES)[place] for place in np.searchsorted(ends, order, side="right"))
    assert counted == {"wiki-zh": 200, "wiki": 600, "books": 200}
    assert facts["wiki-zh"] == {"asked": 0.2, "real": 0.2, "epochs": 5.0}
    assert chosen.by_size(SIZES) == {"wiki", "books"}  # they are read whole: their shares depend on all they hold
    assert chosen.asks


def test_a_cap_on_passes_gives_what_is_over_to_the_others() -> None:
    _, facts = mixed_order(SIZES, total=400, settings=of(**BILINGUAL, most_epochs=1), seed=0)
    assert {name: round(fact["real"] * 400) for name, fact in facts.items()} == {
        "wiki-zh": 40,
        "wiki": 270,
        "books": 90,
    }


def test_a_plan_and_a_card_say_it_in_words() -> None:
    assert of(**BILINGUAL).preset_phrase == (
        "shares of the preset syne-bilingual (arXiv 2407.18743, bilingual adaptation): "
        "zh 20% from wiki-zh; en 80% from wiki, books"
    )
    coded = of(preset="mono-code", parts={"mono": ["a"], "code": ["b"]}).preset_phrase
    assert "ours: the share of code, which the paper does not give" in coded
    assert of().preset_phrase == ""


def test_a_part_without_rows_left_keeps_the_share_that_was_asked() -> None:
    sizes = {"wiki-zh": 0, "wiki": 300, "books": 100}
    order, facts = mixed_order(sizes, total=400, settings=of(**BILINGUAL), seed=0)
    assert {name: fact["asked"] for name, fact in facts.items()} == {"wiki-zh": 0.2, "wiki": 0.6, "books": 0.2}
    assert {name: fact["real"] for name, fact in facts.items()} == {"wiki-zh": 0.0, "wiki": 0.75, "books": 0.25}
    assert len(order) == 400


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "syne"}, "preset is 'syne', and there is none of that name. Known: "),
        ({"preset": "sync-bilingual"}, "Did you mean 'syne-bilingual'?"),
        ({"parts": {"zh": ["a"]}}, "parts are those of a preset; name one, or give shares"),
        ({"preset": "problems"}, "needs sources for each of its parts, and no other: parts: {corpus: "),
        ({"preset": "problems", "parts": {"corpus": ["a"], "problems": []}}, "needs sources for each of its parts"),
        ({**BILINGUAL, "parts": {**BILINGUAL["parts"], "fr": ["c"]}}, "needs sources for each of its parts"),
        ({"preset": "problems", "parts": {"corpus": ["a"], "problems": ["a"]}}, "parts names 'a' twice"),
        ({**BILINGUAL, "temperature": 2}, "has shares of its own; leave shares, phases and temperature out"),
        ({**BILINGUAL, "shares": {"wiki": 0.5}}, "has shares of its own"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared as it stands
        of(**values)
    assert message in str(caught.value)
