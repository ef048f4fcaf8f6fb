"""What the card says of long inputs: the changed base with its paper, the needle test, curves, and their figure."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common.report.long_context import long_context_notes, measured
from common.report.plots import draw_long_context
from tests.report.test_plots import ink

ROPE = {"base_before": 10_000.0, "base": 500_000.0, "context_before": 256, "context": 1024, "beyond": 0.125}


def cell(length: int, depth: float | None, score: float) -> dict[str, Any]:
    return {"length": length, "depth": depth, "score": score, "n": 8, "low": score / 2, "high": (1 + score) / 2}


def checkpoint(name: str, score: float, **metrics: Any) -> Any:
    curve = [
        {"first": 0, "last": 127, "bits_per_byte": 1.25, "low": 1.0, "high": 1.5, "n": 4},
        {"first": 128, "last": 255, "bits_per_byte": 1.5, "low": None, "high": None, "n": 1},
    ]
    needle = [cell(128, 0.0, score), cell(128, None, score), cell(256, 0.0, score), cell(256, None, score)]
    far = {"length": 256, "context": 256, "choices": 4, "needle": needle, "positions": {"domain": curve}}
    return SimpleNamespace(name=name, metrics=metrics, exam={"long_context": far})


def chain(*checkpoints: Any) -> Any:
    return SimpleNamespace(checkpoints=checkpoints)


def test_the_base_and_what_was_measured_are_told() -> None:
    notes = long_context_notes(chain(checkpoint("base", 0.25), checkpoint("cpt", 0.75, rope=ROPE)))
    text = "\n".join(notes)
    assert notes[0] == "### Long inputs"
    for told in (
        "`cpt` changed the base of the rotary position embeddings from 10,000 to 500,000. The context grew from 256 to "
        "1,024 tokens (Llama 2 Long, arXiv 2309.16039, section 2.1). 12.5% of the positions",
        "right where of 4 keys that one has gained most likelihood by the text; chance is 25.0%",
        "128 tokens [95%] |", "75.0% [37.5%, 87.5%]", "1.250 [1.000, 1.500]", "windows of 256 tokens",
        "(long_context.png)",
    ):  # fmt: skip
        assert told in text


def test_texts_that_fill_no_window_are_told_and_no_intervals_promised() -> None:
    short, other = checkpoint("base", 0.25), checkpoint("other", 0.5)
    for one, last in ((short, 180), (other, 190)):
        curve = one.exam["long_context"]["positions"]["domain"]
        curve[0] |= {"low": None, "high": None, "n": 1}
        curve[1]["last"] = last
    text = "\n".join(long_context_notes(chain(short, other)))
    assert "No window is as long as that: the longest has 191 tokens (domain text)." in text
    assert "bootstrap" not in text
    assert "128 to 190" in text
    assert "128 to 255" not in text
    plain = "\n".join(long_context_notes(chain(checkpoint("base", 0.25))))
    assert "bootstrap over the windows" in plain
    assert "the longest has" not in plain


def test_a_base_that_config_json_left_out_and_a_context_that_stays() -> None:
    facts = {**ROPE, "base_before": None, "context_before": 1024}
    (_, note) = long_context_notes(chain(SimpleNamespace(name="cpt", metrics={"rope": facts}, exam={})))
    assert note.endswith("from the base of its architecture to 500,000 (Llama 2 Long, arXiv 2309.16039, section 2.1).")


def test_a_base_that_stays_is_no_change() -> None:
    same = SimpleNamespace(name="cpt", metrics={"rope": {**ROPE, "base": 1e4}}, exam={})
    (_, note) = long_context_notes(chain(same))
    assert note.startswith("`cpt` left the base of the rotary position embeddings at 10,000. The context grew from 256")


def test_without_any_of_it_nothing_is_said() -> None:
    plain = chain(SimpleNamespace(name="cpt", metrics={}, exam={}))
    assert long_context_notes(plain) == []
    assert measured(plain) == []


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    made = chain(checkpoint("base", 0.25), checkpoint("cpt", 0.75))
    draw_long_context(made, tmp_path / "far.png", work=tmp_path)
    assert ink(tmp_path / "far.png") > 0.02
    nothing = checkpoint("base", 0.0)
    nothing.exam["long_context"] |= {"needle": [], "positions": {}}
    draw_long_context(chain(nothing), tmp_path / "none.png", work=tmp_path)
    assert (tmp_path / "none.png").is_file()
