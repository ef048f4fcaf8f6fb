"""Words and sentences for datatrove, and rows judged by its filters: as they would judge, with reasons of ours."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from common.config.blocks import TEXT, Drop, block_of
from common.data.blocks import c4, fineweb_quality, gopher_quality, gopher_repetition
from common.data.splitting import splitter
from tests.data.blocks.driving import PROSE, applied, generated, one, rows_of

MODULES: dict[str, tuple[Any, str, str]] = {
    "gopher_quality": (gopher_quality, "gopher_quality_filter", "GopherQualityFilter"),
    "gopher_repetition": (gopher_repetition, "gopher_repetition_filter", "GopherRepetitionFilter"),
    "c4": (c4, "c4_filters", "C4QualityFilter"),
    "fineweb_quality": (fineweb_quality, "fineweb_quality_filter", "FineWebQualityFilter"),
}
EVERYTHING_OFF: dict[str, dict[str, Any]] = {
    "gopher_quality": dict.fromkeys(
        ["min_doc_words", "max_doc_words", "min_avg_word_length", "max_avg_word_length", "max_symbol_word_ratio",
         "max_bullet_lines_ratio", "max_ellipsis_lines_ratio", "max_non_alpha_words_ratio", "min_stop_words"]
    ),
    "gopher_repetition": {
        **dict.fromkeys(["dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac"]),
        "top_n_grams": [], "dup_n_grams": [],
    },
    "c4": {
        "remove_citations": False, "filter_no_terminal_punct": False, "min_num_sentences": None,
        "min_words_per_line": None, "max_word_length": None, "filter_lorem_ipsum": False, "filter_javascript": False,
        "filter_curly_bracket": False, "filter_policy": False,
    },
    "fineweb_quality": dict.fromkeys(["line_punct_thr", "short_line_thr", "char_duplicates_ratio", "new_line_ratio"]),
}  # fmt: skip


def bare(name: str) -> Any:
    _, module, cls = MODULES[name]
    return getattr(__import__(f"datatrove.pipeline.filters.{module}", fromlist=[cls]), cls)


def test_words_are_as_written_with_signs_that_stand_alone() -> None:
    assert splitter().word_tokenize("A well-known (old) | \u201cna\u00efve\u201d idea: don't ### _x_") == [
        "A", "well-known", "old", "|", "na\u00efve", "idea", "don't", "###", "x"
    ]  # fmt: skip
    assert splitter().word_tokenize("\u4f60\u597d\u3002") == ["\u4f60", "\u597d"]


def test_sentences_end_at_signs_of_all_scripts_and_not_inside_numbers() -> None:
    text = (
        'It is 3.5 m. "Really?" Yes!\u4f60\u597d\u3002\u518d\u89c1\uff01 \u0928\u092e\u0938\u094d\u0924\u0947\u0964 Bye'
    )
    found = splitter().sent_tokenize(text)
    assert found == [
        "It is 3.5 m.", '"Really?"', "Yes!\u4f60\u597d\u3002", "\u518d\u89c1\uff01",
        "\u0928\u092e\u0938\u094d\u0924\u0947\u0964", "Bye",
    ]  # fmt: skip
    spans = splitter().span_tokenize(text)
    assert "".join(text[start:stop] for start, stop in spans) == text


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("language", PROSE)
def test_good_prose_stays_as_it_is(name: str, language: str, tmp_path: Path) -> None:
    rows = rows_of([PROSE[language]], language=language)
    assert applied(name, rows, tmp_path) == rows


@pytest.mark.parametrize("name", MODULES)
def test_every_text_is_judged_as_the_bare_filter_does(name: str, tmp_path: Path) -> None:
    from datatrove.data import Document

    module = MODULES[name][0]
    judged = bare(name)(language=splitter())
    texts = [text for text in generated(200) if text.strip()]
    found = applied(name, rows_of(texts, language="en"), tmp_path)
    seen = Counter[str]()
    for text, ours in zip(texts, found, strict=True):
        document = Document(text, "")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            theirs = judged.filter(document)
        if theirs is True:
            assert not isinstance(ours, Drop)
            assert ours["text"] == document.text
            assert ("changed" in ours) is (document.text != text)
            seen["kept"] += 1
        elif theirs[1].startswith("top_") and not isinstance(ours, Drop):  # that it occurs once is no repeat here
            words, n = splitter().word_tokenize(text), int(theirs[1].split("_")[1])
            n_grams = [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]
            assert len(set(n_grams)) == len(n_grams), text
        else:
            assert isinstance(ours, Drop), text
            seen[theirs[1]] += 1
            if theirs[1] in module.REASONS:
                assert ours.reason == module.REASONS[theirs[1]][0]
            assert ours.reason != theirs[1] or ours.reason == "empty"
    assert seen["kept"] >= 5, "the documents must be of both kinds"
    assert len(seen) >= 4


@pytest.mark.parametrize("name", MODULES)
def test_defaults_and_names_are_those_of_datatrove(name: str) -> None:
    ours = {key: field.default for key, field in block_of(name).settings.model_fields.items()}
    theirs = inspect.signature(bare(name).__init__).parameters
    for key, parameter in theirs.items():
        if key in ("self", "exclusion_writer", "language"):
            continue
        assert key in ours, f"{name}: the setting {key} of datatrove is missing"
        if key == "stop_words":
            continue  # by language here
        assert ours[key] == parameter.default, key


@pytest.mark.parametrize("name", MODULES)
def test_with_all_rules_off_nothing_happens(name: str, tmp_path: Path) -> None:
    texts = [line for text in generated(60) for line in [text.strip()] if line and "\n" not in line]
    texts += ["\n".join(["a", "b c"] * 40), "!!! ### ...", "{x} lorem ipsum"]
    rows = rows_of(texts, language="en")
    assert applied(name, rows, tmp_path, **EVERYTHING_OFF[name]) == rows


@pytest.mark.parametrize("name", MODULES)
def test_an_empty_text_is_dropped_as_such(name: str, tmp_path: Path) -> None:
    assert applied(name, rows_of(["", " \n\t "]), tmp_path, **EVERYTHING_OFF[name]) == [Drop("empty")] * 2


@pytest.mark.parametrize("name", MODULES)
def test_only_text_rows_are_seen(name: str) -> None:
    assert tuple(block_of(name).rows) == TEXT


def test_a_rule_that_is_off_for_a_language_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="common.data.splitting"):
        for _ in range(2):
            one("gopher_quality", "a text", tmp_path, language="qx")
    said = [message for message in caplog.messages if "qx" in message]
    assert said == ["gopher_quality: stop words not checked for rows in qx: there is no list; give stop_words.<code>"]


def test_filters_share_the_words_of_a_text(tmp_path: Path) -> None:
    """One object for all of them, so that datatrove's memory of the last texts holds."""
    from datatrove.utils.text import split_into_parts

    split_into_parts.cache_clear()
    text = generated(1)[0] + " and so on, with more words than anything asks for" * 9
    for name in ("gopher_quality", "gopher_repetition", "fineweb_quality"):
        applied(name, rows_of([text]), tmp_path)
    assert split_into_parts.cache_info().misses == 1
