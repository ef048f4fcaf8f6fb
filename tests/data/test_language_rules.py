"""What rules know of languages: lists that are lists, and codes that are codes."""

from __future__ import annotations

from common.data.language_rules import OWN_STOPS, WITHOUT_SPACES, stop_words
from common.data.manifest.language_codes import language_problem
from common.data.words import written_words
from tests.data.blocks.driving import PROSE


def test_every_list_has_different_words_under_a_code() -> None:
    assert len(stop_words()) >= 10
    for code, words in stop_words().items():
        assert language_problem(code, answered=False) == []
        assert len(set(words)) == len(words) >= 8, code
        assert all(written_words(word) == [word] for word in words), code


def test_english_has_the_words_of_the_paper() -> None:
    assert set(stop_words()["en"]) == {"the", "be", "to", "of", "and", "that", "have", "with"}


def test_prose_has_some_of_its_own_language_and_few_of_others() -> None:
    for code in ("en", "de", "sw"):
        found = {other: len(set(stop_words()[other]) & set(PROSE[code].split())) for other in ("en", "de", "sw")}
        assert found.pop(code) >= 4
        assert max(found.values()) <= 2


def test_languages_without_spaces_have_no_list_and_stops_of_their_own() -> None:
    assert not WITHOUT_SPACES & stop_words().keys()
    assert WITHOUT_SPACES <= OWN_STOPS
