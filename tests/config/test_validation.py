"""Messages on wrong keys and values, for every kind that the settings have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, HttpUrl, ValidationError, field_validator

from common.config.pipeline import load_pipeline
from common.config.resolve import resolve
from common.config.validation import explain, report, validated
from common.engine.frozen_plan import freeze, thaw
from common.errors import ConfigError
from tests.conftest import REPOSITORY


class Inner(BaseModel):
    deep: int = 1


class Every(BaseModel):
    model_config = ConfigDict(extra="forbid")
    flag: bool = True
    count: int = Field(1, ge=1, le=10_000_000)
    rate: float = Field(0.5, gt=0, lt=1.5)
    name: str = Field("abc", min_length=3, max_length=5)
    code: str = Field("ab", pattern="^[a-z]+$")
    kind: Literal["ddp", "fsdp2"] = "ddp"
    rows: Annotated[list[int], Field(min_length=2)] = [1, 2]
    pair: tuple[str, ...] = ()
    inner: Inner = Inner()
    facts: dict[str, int] = {}
    size: int = Field(8, multiple_of=8)
    real: FiniteFloat = 1.0

    @field_validator("pair")
    @classmethod
    def _not_odd(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) % 2:
            raise ValueError("an even number of them, please")
        return value


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"flag": "maybe"}, "expected true or false; got 'maybe'."),
        ({"count": "two"}, "expected a whole number; got 'two'."),
        ({"count": 2.5}, "expected a whole number; got 2.5."),
        ({"count": 0}, "expected 1 to 10,000,000; got 0."),
        ({"count": 10_000_001}, "expected 1 to 10,000,000; got 10000001."),
        ({"rate": "fast"}, "expected a number; got 'fast'."),
        ({"rate": 0}, "expected more than 0 and less than 1.5; got 0."),
        ({"rate": 2}, "expected more than 0 and less than 1.5; got 2."),
        ({"name": 3}, "expected text; got 3; put it in quotes."),
        ({"name": "a"}, "expected text of at least 3 letters; got 'a'."),
        ({"name": "aaaaaa"}, "expected text of at most 5 letters; got 'aaaaaa'."),
        ({"code": "A"}, "expected text like ^[a-z]+$; got 'A'."),
        ({"kind": "zero"}, "expected ddp or fsdp2; got 'zero'."),
        ({"rows": [1]}, "expected at least 2 of them; got [1]."),
        ({"rows": 1}, "expected a list; got 1."),
        ({"pair": "a"}, "expected a list; got 'a'."),
        ({"pair": ["a"]}, "an even number of them, please; got ['a']."),
        ({"inner": 3}, "expected keys below it; got 3."),
        ({"facts": 3}, "expected keys below it; got 3."),
        ({"size": 9}, "expected a multiple of 8; got 9."),
        ({"real": float("inf")}, "expected a finite number; got inf."),
        ({"flga": True}, "unknown key. Did you mean 'flag'?"),
    ],
)
def test_every_kind_says_what_is_expected(values: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Every.model_validate(values)
    key = next(iter(values))
    assert explain(caught.value, Every, values, prefix="a.b") == [f"a.b.{key}: {expected}"]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: str
    path: str | tuple[str, ...] = ""
    link: HttpUrl | None = None


class Nested(BaseModel):
    parts: tuple[Part, ...]
    first: Part | None = None
    by_name: dict[str, Annotated[tuple[Part, ...], Field(min_length=1)]] = {}


def problems_of(raw: Any, **facts: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Nested.model_validate(raw)
    return explain(caught.value, Nested, raw, **facts)


def test_items_of_a_list_go_by_their_name_and_all_problems_come_at_once() -> None:
    raw = {
        "parts": [{"id": "one", "pth": "x"}, {"path": 3}, {"id": "two", "link": 5}, {"id": "a"}, {"id": "a", "c": 0}],
        "first": {"id": None},
        "by_name": {"x": [{"id": "deep", "pth": "y"}]},
    }
    near = "unknown key. Did you mean 'path'?"
    assert problems_of(raw) == [
        f"parts.one.pth: {near}",
        "parts.number 2.id is missing.",
        "parts.number 2.path: expected text or a list; got 3.",
        "parts.two.link: URL input should be a string or URL; got 5.",  # pydantic's message where we have none
        "parts.number 5.c: unknown key. Known: id, link, path.",
        "first.id: expected text; got nothing.",
        f"by_name.x.deep.pth: {near}",
    ]


def test_a_problem_names_the_layer_that_set_the_key() -> None:
    assert problems_of({"parts": 3}, prefix="a", origin={"a.parts": "profile tiny"}.get) == [
        "a.parts (profile tiny): expected a list; got 3."
    ]


def test_a_report_has_one_line_for_each_problem_and_an_end() -> None:
    assert report("a.yaml", ["x is missing"]) == "a.yaml: x is missing."
    lines = report("a.yaml", [f"{number} is wrong" for number in range(25)]).splitlines()
    assert (lines[0], lines[1]) == ("a.yaml has 25 problems:", "  - 0 is wrong.")
    assert (len(lines), lines[-1]) == (22, "  … and 5 more")


def test_pipelines_and_frozen_plans_say_it_too(tmp_path: Path) -> None:
    text = "description: x\nstages: {base: {kind: base}}\nexmas: [base]\nexam: [base]\npublish: base\n"
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"x\.yaml: exmas: unknown key\. Did you mean 'exam'"):
        load_pipeline(tmp_path, "x")
    text = text.replace("exmas: [base]\n", "")
    (tmp_path / "x.yaml").write_text(text.replace("publish: base\n", ""), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"x\.yaml: publish is missing\."):
        load_pipeline(tmp_path, "x")
    (tmp_path / "x.yaml").write_text(text.replace("{kind: base}", "{kind: base, frm: x}"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"x\.yaml: stages\.base\.frm: unknown key\. Did you mean 'from'"):
        load_pipeline(tmp_path, "x")
    plan = freeze(resolve({"domain": "medical", "out": str(tmp_path)}, REPOSITORY))
    with pytest.raises(ConfigError, match=r"run\.verbosty: unknown key\. Did you mean 'verbosity'"):
        thaw(plan, {"run.verbosty": "quiet"}, REPOSITORY)
    with pytest.raises(ConfigError, match=r"run\.processes: expected a whole number; got 'two'"):
        thaw(plan, {"run.processes": "two"}, REPOSITORY)


class Ends(BaseModel):
    ends: tuple[int, int] = (0, 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [([], ["ends.number 1 is missing.", "ends.number 2 is missing."]), ([3], ["ends.number 2 is missing."])],
)
def test_items_that_are_missing_are_named_by_their_number(given: list[int], expected: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        Ends.model_validate({"ends": given})
    assert explain(caught.value, Ends, {"ends": given}) == expected


def test_of_very_many_problems_the_first_are_shown() -> None:
    with pytest.raises(ConfigError) as raised:
        validated(Every, {f"x{number}": number for number in range(1000)})
    lines = str(raised.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "  … and 980 more"
