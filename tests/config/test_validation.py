"""What is wrong with a key or value is told in words of ours, for every kind that the settings have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from common.config.pipeline import load_pipeline
from common.config.resolve import resolve
from common.config.validation import describe_error, expected_of
from common.engine.frozen_plan import thaw
from common.engine.views import freeze
from common.errors import ConfigError
from common.store.artifacts import Store
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
    ("values", "told"),
    [
        ({"flag": "maybe"}, "expected true or false; got 'maybe'."),
        ({"count": "two"}, "expected a whole number; got 'two'."),
        ({"count": 2.5}, "expected a whole number; got 2.5."),
        ({"count": 0}, "expected at least 1; got 0."),
        ({"count": 10_000_001}, "expected at most 10000000; got 10000001."),
        ({"rate": "fast"}, "expected a number; got 'fast'."),
        ({"rate": 0}, "expected more than 0; got 0."),
        ({"rate": 2}, "expected less than 1.5; got 2."),
        ({"name": 3}, "expected text; got 3."),
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
def test_every_kind_has_its_words(values: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Every.model_validate(values)
    assert describe_error(caught.value.errors()[0], Every.model_fields) == told


def test_what_has_no_words_of_ours_keeps_pydantic_s() -> None:
    item = {"type": "url_scheme", "loc": ("x",), "msg": "URL scheme should be 'http'", "input": "a", "ctx": {}}
    assert expected_of(item) == "URL scheme should be 'http'"
    assert describe_error({"type": "missing", "loc": ("x",), "msg": "Field required", "input": {}}) == "is missing."


def test_pipelines_and_frozen_plans_say_it_too(tmp_path: Path) -> None:
    text = "description: x\nstages: {base: {kind: base}}\nexmas: [base]\nexam: [base]\npublish: base\n"
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"x\.yaml: exmas: unknown key\. Did you mean 'exam'"):
        load_pipeline(tmp_path, "x")
    text = text.replace("exmas: [base]\n", "")
    (tmp_path / "x.yaml").write_text(text.replace("publish: base\n", ""), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"x\.yaml: publish: is missing\."):
        load_pipeline(tmp_path, "x")
    (tmp_path / "x.yaml").write_text(text.replace("{kind: base}", "{kind: base, frm: x}"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"x\.yaml: stages\.base\.frm: unknown key\. Did you mean 'from'"):
        load_pipeline(tmp_path, "x")
    plan = freeze(resolve({"domain": "medical", "out": str(tmp_path)}, REPOSITORY), Store(tmp_path))
    with pytest.raises(ConfigError, match=r"run\.verbosty: unknown key\. Did you mean 'verbosity'"):
        thaw(plan, {"run.verbosty": "quiet"}, REPOSITORY)
    with pytest.raises(ConfigError, match=r"run\.processes: expected a whole number; got 'two'"):
        thaw(plan, {"run.processes": "two"}, REPOSITORY)
