"""Gopher's rules of quality: each planted fault has its reason, and good prose of any language stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config.blocks import Drop, checked
from tests.data.blocks.driving import PROSE, one, reason

FAULTS = {
    "too few words": "Only a few words, and that is all of the text.",
    "too many hashes": " # ".join(PROSE["en"].split(" ")),
    "too many ellipses": PROSE["en"].replace(" ", "... "),
    "words too long": " ".join(["uncharacteristically"] * 60),
    "words too short": " ".join(["to be or no"] * 20),
    "too many bullets": "\n".join(f"- {part}" for part in PROSE["en"].split(". ")),
    "too many lines end in an ellipsis": "\n".join(f"{part}..." for part in PROSE["en"].split(". ")),
    "too few words with letters": " ".join(f"{word} 2019" for word in PROSE["en"].split(" ")),
    "too few stop words": " ".join(["River stone light garden winter"] * 12),
}


@pytest.mark.parametrize("expected", FAULTS)
def test_a_planted_fault_has_its_reason(expected: str, tmp_path: Path) -> None:
    assert reason(one("gopher_quality", FAULTS[expected], tmp_path)) == expected


def test_a_text_may_be_too_long(tmp_path: Path) -> None:
    found = one("gopher_quality", PROSE["en"], tmp_path, max_doc_words=60)
    assert found == Drop("too many words", "max_doc_words is 60")


def test_stop_words_are_those_of_the_language(tmp_path: Path) -> None:
    plain = FAULTS["too few stop words"]
    assert reason(one("gopher_quality", PROSE["en"], tmp_path, language="de")) == "too few stop words"
    assert reason(one("gopher_quality", plain, tmp_path, language=None)) is None
    assert reason(one("gopher_quality", plain, tmp_path, language="fr-x", stop_words={})) == "too few stop words"
    assert reason(one("gopher_quality", plain, tmp_path, language="qq")) is None
    own = {"qq": ["stone", "light"]}
    assert reason(one("gopher_quality", plain, tmp_path, language="qq", stop_words=own)) is None
    assert reason(one("gopher_quality", PROSE["en"], tmp_path, language="qq", stop_words={"qq": ["zz"]})) is not None


def test_a_row_without_a_language_is_in_the_one_of_the_settings(tmp_path: Path) -> None:
    """A field of the block, as `language` of the row comes from its source."""
    from common.config.blocks import block_of
    from tests.data.blocks.driving import context_of, rows_of

    block = block_of("gopher_quality")
    assert block.start is not None
    judge = block.start(block.settings.model_validate({"language": "en"}), context_of(tmp_path))
    [row] = rows_of([FAULTS["too few stop words"]])
    assert reason(judge(row)) == "too few stop words"
    assert reason(judge(row | {"language": "qq"})) is None


def test_a_list_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stop_words\.sw has no words; leave it out, or set min_stop_words to null"):
        checked([{"gopher_quality": {"stop_words": {"sw": []}}}])
