"""A text and its translation are woven as the form says, and the exam is found in both sides as they stood before."""

from __future__ import annotations

from typing import Any

import pytest

from common.config.blocks import Drop
from common.data.decontaminate import Decontaminator, gate
from common.data.exam_passages import exam_passages
from common.data.forms.interlinear import InterlinearSettings, write
from common.data.manifest.values import UnusableRow
from tests.data.manifest.shaping import shape

EN_SW: dict[str, Any] = {"languages": ("en", "sw")}
SIDES = {"source": "en", "target": "sw"}


def woven(source: list[str], target: list[str], **settings: Any) -> str:
    return str(write({"source": source, "target": target}, InterlinearSettings(**EN_SW, **settings))["text"])


def test_sentences_alternate_and_the_tag_stands_on_the_source() -> None:
    assert woven(["Hi.", "Go\non!"], ["Jambo.", " Endelea! "]) == "<en-sw> Hi.\nJambo.\n<en-sw> Go on!\nEndelea!"
    assert woven(["Hi."], ["Jambo."], source_tag="<{source}>", target_tag="<{target}>") == "<en>Hi.\n<sw>Jambo."
    assert woven(["Hi."], ["Jambo."], source_tag="") == "Hi.\nJambo."


def test_lines_correspond_and_empty_ones_on_both_sides_are_left_out() -> None:
    assert woven(["A.\n\nB."], ["a.\n\nb."], unit="line", source_tag="") == "A.\na.\nB.\nb."


def test_sentences_of_longer_texts() -> None:
    assert woven(["It rains. Why? 3.5 mm."], ["Inanyesha. Kwa nini? 3.5 mm."], unit="sentence", source_tag="") == (
        "It rains.\nInanyesha.\nWhy?\nKwa nini?\n3.5 mm.\n3.5 mm."
    )
    with pytest.raises(UnusableRow, match="different numbers of sentences"):
        woven(["It rains. Why?"], ["Inanyesha."], unit="sentence")


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("A.\nB.", "a.", "source and target have different numbers of lines"),
        ("A.\n\nB.", "a.\nb.\nc.", "lines without a translation"),
        ("A.", "", "empty target"),
        (None, "a.", "empty source"),
        ([], "a.", "empty source"),
        (["A.", None], ["a.", "b."], "empty source"),
        (5, "a.", "source is no text"),
    ],
)
def test_rows_that_are_left_out_say_why(source: Any, target: Any, reason: str) -> None:
    form = {"interlinear": {**EN_SW, "unit": "line"}}
    with pytest.raises(UnusableRow, match=reason):
        shape("cpt", {"en": source, "sw": target}, SIDES, form=form)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "languages"),
        ({"languages": ["en", "en"]}, "names one language twice"),
        ({"languages": ["English", "sw"]}, "expected an ISO 639 code"),
        ({**EN_SW, "source_tag": "<{to}>"}, "may hold {source} and {target}, and no other braces"),
        ({**EN_SW, "target_tag": "{"}, "no other braces"),
        ({**EN_SW, "source_tag": "{source.x}"}, "no other braces"),
        ({**EN_SW, "source_tag": "{source[0]}"}, "no other braces"),
        ({**EN_SW, "source_tag": "{target!r:>9}"}, "no other braces"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InterlinearSettings.model_validate(settings)


ASKED = "The old man went home. He had seen the lion. It slept under the big tree."
TOLD = "Mzee alienda nyumbani. Alikuwa amemwona simba. Alilala chini ya mti mkubwa."


class Exam:
    """An exam of one held-out text."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = {"source": "held", **row}

    def exam_roles(self, role: str) -> tuple[str, ...]:
        return ("text_domain",)

    def rows(self, role: str) -> Any:
        return iter([self.row])


def test_the_exam_is_found_in_both_sides_though_weaving_tears_it_apart() -> None:
    row = shape(
        "cpt", {"en": ASKED, "sw": TOLD}, SIDES, form={"interlinear": {**EN_SW, "unit": "sentence"}}
    ) | {"source": "s"}  # fmt: skip
    english = Decontaminator([ASKED])
    assert english.hit(row["text"]) is None  # no 13 words in a row
    assert isinstance(gate(english)(row), Drop)
    assert isinstance(gate(Decontaminator([TOLD]))(row), Drop)
    kept = gate(Decontaminator(["What is the capital of Mali?"]))(row)
    assert isinstance(kept, dict)
    assert kept.keys() == {"text", "source"}  # nothing else is stored, or trained


def test_a_held_out_text_is_found_in_its_sides_alone() -> None:
    row = shape("cpt", {"en": ASKED, "sw": TOLD}, SIDES, form={"interlinear": {**EN_SW, "unit": "sentence"}})
    guard = Decontaminator(exam_passages(Exam(row), "cpt"))
    assert guard.hit(f"{ASKED} They laughed.") is not None
    assert guard.hit(TOLD) is not None
    assert guard.hit("Bamako lies on the Niger, and its market is larger than any other of the country.") is None
