"""Language codes are checked when a manifest is loaded."""

from __future__ import annotations

import pytest

from common.data.manifest.language_codes import IDENTIFIED, language_problem


@pytest.mark.parametrize(("code", "answered"), [("sw", True), ("zh-hans", True), ("quz", False), ("de-at", False)])
def test_codes_that_are_fine(code: str, answered: bool) -> None:
    assert language_problem(code, answered=answered) == []


def test_a_name_and_capitals_are_refused_with_the_way_out() -> None:
    start = "expected an ISO 639 code in small letters, as en, sw or zh-hans; "
    assert language_problem("English", answered=False) == [f"language is 'English'; {start}its name is no code"]
    assert language_problem("zh-Hans", answered=True) == [f"language is 'zh-Hans'; {start}write zh-hans"]


def test_answers_need_a_language_that_can_be_identified() -> None:
    (problem,) = language_problem("quz", answered=True)
    assert "language is 'quz', which py3langid cannot identify, so no answer could be checked. Did you mean" in problem


def test_the_codes_are_those_of_the_model() -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    labels = {str(label) for label in LanguageIdentifier.from_model_file(MODEL_FILE).labels}
    assert labels - {"zxx"} == IDENTIFIED  # zxx: no language
