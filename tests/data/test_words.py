"""Words of every script: what makes two the same, and how many characters weigh like one."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from common.data import words
from common.data.words import count_words, cut, pieces_of_text, words_of


def test_words_have_one_spelling() -> None:
    assert words_of("_Caf\u00e9_ STRASSE") == words_of("cafe\u0301 straße") == ["cafe", "strasse"]
    assert words_of("\uff26\uff35\uff2c\uff2c\u3000\ufb01t") == ["full", "fit"]
    assert words_of("di\u00adag\u200bno\u200dsed \ufeff\u202bx\u202c") == ["diagnosed", "x"]
    assert words_of("\u0643\u062a\u0640\u0640\u0627\u0628\u064f") == ["\u0643\u062a\u0627\u0628"]
    assert (
        words_of("\u0130stanbul \U0001f600") == words_of("\u0130stanbul") == words_of("i\u0307stanbul") == ["istanbul"]
    )
    assert words_of("\u0386\u03a3\u0398\u039c\u0391") == words_of("\u03b1\u03c3\u03b8\u03bc\u03b1")
    assert words_of("\u0439") == ["\u0439"] != words_of("\u0438")  # letters of their own, of Cyrillic


def test_html_is_undone_where_it_is_html() -> None:
    assert words_of("H<sub>2</sub>O<br>is&nbsp;wet &amp; <a href='x y'>cold</a>") == ["h2o", "is", "wet", "cold"]
    assert words_of("a<b and c>d, <think>") == ["a", "b", "and", "c", "d", "think"]


def test_marks_belong_to_their_word() -> None:
    assert words_of("इसका मुख्य लक्षण क्या है?") == ["इसका", "मुख्य", "लक्षण", "क्या", "है"]
    assert words_of("தமிழ் மொழி") == ["தமிழ்", "மொழி"]


def test_hyphens_and_apostrophes_give_two_forms() -> None:
    assert cut("diag-\nnosed, don't 'so'") == (
        ["diag", "nosed", "don", "t", "so"], ["diagnosed", "dont", "so"], (0, 1), (2, 2)
    )  # fmt: skip
    assert cut("a - b, 'c' d").joined is None
    assert cut("caf\u00e9 l\u2019\u00e9t\u00e9 post\u2010op").joined == ["cafe", "lete", "postop"]


def test_scripts_without_spaces_count_by_weight() -> None:
    assert words_of("北京是首都") == ["北", "京", "是", "首", "都"]
    assert words_of("กำลัง") == ["กํ", "า", "ลั", "ง"]
    assert count_words("中国的首都是哪座城市?") == 6
    assert count_words("ภาวะหัวใจล้มเหลวคืออะไร") == 5
    assert count_words("three plain words") == 3


def test_what_is_ignored_is_what_unicode_ignores() -> None:
    import regex  # type: ignore[import-untyped]  # a dependency of transformers, for the test alone

    every = "".join(chr(place) for place in range(sys.maxunicode + 1))
    ignored = regex.findall(r"\p{Default_Ignorable_Code_Point}", every)
    assert len(ignored) > 4000
    assert [hex(ord(sign)) for sign in ignored if not words._LAYOUT.match(sign)] == []


@pytest.mark.parametrize("text", ["", "?!", "\u0301", "\u00ad"])
def test_texts_without_a_word(text: str) -> None:
    assert cut(text) == ([], None, (), ())


def test_short_and_long_patterns_agree_where_both_apply() -> None:
    text = "".join(chr(c) for c in [*range(0x20, 0x300), *range(0x370, 0x483), *range(0x1E00, 0x2030)])
    text = unicodedata.normalize("NFKC", " ".join(text)).casefold().replace("_", " ")
    simple = "".join(sign for sign in text if not words._NOT_SIMPLE.match(sign))
    assert words._SIMPLE.findall(simple) == words._any().findall(simple)


def test_pieces_lose_nothing_and_end_before_a_blank() -> None:
    text = "one two three four five"
    assert list(pieces_of_text(text, 10)) == ["one two", " three", " four five"]
    assert list(pieces_of_text("x" * 25, 10)) == ["x" * 10, "x" * 10, "x" * 5]
    assert list(pieces_of_text("", 10)) == []
