"""A domain's rewards.py: its functions are rewards like any other, and what is wrong with them is said before a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.config.kinds import kind_of
from common.errors import ConfigError, DataError
from common.rewards.mix import Mix, check_rewards
from common.rewards.own import own_names, verifiers_with
from common.rewards.verifiers import VERIFIERS, Answer

GOOD = """
from __future__ import annotations

import json
from common.rewards.verifiers import Answer, exact as _exact


def formula_valid(answer: Answer, *, elements: list[str], strict: bool = True) -> float:
    return float(_is_element(answer.text.lower() if not strict else answer.text, elements))


def shouted(answer: Answer) -> bool:
    return answer.text.isupper()


def _is_element(text: str, elements: list[str]) -> bool:
    return text in elements
"""


def written(folder: Path, source: str) -> Path:
    path = folder / "rewards.py"
    path.write_text(source, encoding="utf-8")
    return path


def test_public_functions_are_rewards_with_options(tmp_path: Path) -> None:
    verifiers = verifiers_with(written(tmp_path, GOOD))
    assert set(verifiers) - set(VERIFIERS) == {"formula_valid", "shouted"}
    rewards = {"formula_valid": {"elements": ["He"], "weight": 2.0}, "shouted": {}, "stopped": {}}
    mix = Mix.of(rewards, verifiers=verifiers)
    assert mix.score([Answer("He", {}), Answer("HE", {})]).totals == [3.0, 2.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rewards.py"]  # no bytecode beside it
    assert "shouted" not in VERIFIERS


def test_an_edit_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    assert verifiers_with(path)["shouted"](Answer("A", {})) is True
    written(tmp_path, GOOD.replace("isupper", "islower"))
    assert verifiers_with(path)["shouted"](Answer("A", {})) is False
    path.unlink()
    assert verifiers_with(path) is VERIFIERS


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ({"formula_valid": {}}, "sft.rewards.formula_valid.elements is missing."),
        ({"formula_valid": {"elements": "He"}}, "sft.rewards.formula_valid.elements: expected a list; got 'He'."),
        ({"shouted": {"loud": 1}}, "sft.rewards.shouted.loud: unknown key."),
        ({"shouts": {}}, "there is no such reward, and no `model` is given. Did you mean 'shouted'?"),
    ],
)
def test_options_are_checked_against_the_annotations(rewards: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_rewards(rewards, "sft.rewards", verifiers=verifiers_with(written(tmp_path, GOOD)))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(:", "rewards.py could not be loaded: SyntaxError: "),
        ("import nowhere_at_all", "could not be loaded: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        (
            "def f(answer, *, x: int) -> str: ...",
            "expected `def f(answer: Answer, *, option: type = default) -> float`",
        ),
        ("def f(answer, *, x=1) -> float: ...", "got `def f(answer, *, x=1) -> float`. If it is not a reward, begin"),
        ("def f(answer, x: int) -> float: ...", "got `def f(answer, x: int) -> float`"),
        ("def f() -> float: ...", "got `def f() -> float`"),
        ("async def f(answer) -> float: ...", "If it is not a reward, begin its name with an underscore."),
        ("def f(answer) -> float: yield 1.0", "If it is not a reward, begin its name with an underscore."),
        ("def f(answer: 'Answr') -> float: ...", "an annotation of 'f' cannot be read: name 'Answr' is not defined."),
        ("def f(a, *, x: type(lambda: 0)) -> float: ...", "an option of 'f' has a type that cannot be checked"),
        ("def exact(answer) -> float: ...", "'exact' is a reward of the package. Give the function another name."),
        ("def f(answer, *, weight: int) -> float: ...", "has an option 'weight', a key that every reward has."),
        ("def f(answer, *, _n: int) -> float: ...", "has an option '_n', a name that pydantic keeps."),
        ("def f(answer, *, copy: bool) -> float: ...", "has an option 'copy', a name that pydantic keeps."),
        ("def f(answer, *, n: 'int.foo') -> float: ...", "an annotation of 'f' cannot be read: type object 'int' has"),
        ("def f(answer) -> 'float[': ...", "an annotation of 'f' cannot be read: '[' was never closed"),
        ("raise SystemExit('bye')", "could not be loaded: SystemExit: bye. Correct the file."),
    ],
)
def test_what_is_no_reward_is_named(source: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        verifiers_with(written(tmp_path, source))
    assert expected in str(caught.value)


def test_a_wrong_result_and_an_exception_name_the_reward(tmp_path: Path) -> None:
    source = "def none(answer) -> float: return None\ndef breaks(answer) -> float: return 1 / 0"
    verifiers = verifiers_with(written(tmp_path, source))
    with pytest.raises(DataError, match="The reward 'none' is None for the answer 'x'; expected a finite number"):
        Mix.of({"none": {}}, verifiers=verifiers).score([Answer("x", {})])
    with pytest.raises(ZeroDivisionError) as caught:
        Mix.of({"breaks": {}}, verifiers=verifiers).score([Answer("x", {})])
    assert caught.value.__notes__ == ["The reward 'breaks' raised this."]


def test_which_settings_need_it() -> None:
    rewards = {"exact": {}, "mine": {}, "judge": {"model": "reward"}}
    sample = kind_of("sample").settings.model_validate({"rewards": rewards})
    assert own_names(sample) == {"mine"}
    grpo = kind_of("grpo").settings.model_validate({"rewards": {"exact": {}}, "watch": {"check": "right"}})
    assert own_names(grpo) == {"right"}
    assert own_names(kind_of("cpt").settings.model_validate({"tokens": 5})) == set()
