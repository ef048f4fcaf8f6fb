"""Languages told apart: rows in another one go, short and undeclared ones stay."""

from __future__ import annotations

import logging
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from common.config.blocks import ALL, Drop, block_of, checked
from common.errors import ConfigError, DataError
from tests.data.blocks.driving import PROSE, applied, one, reason

SPOKEN = tuple(PROSE)


@pytest.mark.parametrize("declared", SPOKEN)
@pytest.mark.parametrize("spoken", SPOKEN)
def test_the_declared_language_stays_and_others_go(spoken: str, declared: str, tmp_path: Path) -> None:
    found = one("language", PROSE[spoken], tmp_path, language=declared, shortest=50)
    assert reason(found) == (None if spoken == declared else "another language")
    if isinstance(found, Drop):
        assert found.detail.startswith(spoken)


def test_a_list_goes_before_what_is_declared(tmp_path: Path) -> None:
    keep: dict[str, Any] = {"keep": ["de", "sw"], "shortest": 50}
    found = {code: one("language", text, tmp_path, language="en", **keep) for code, text in PROSE.items()}
    assert {code for code, row in found.items() if not isinstance(row, Drop)} == {"de", "sw"}


def test_a_row_of_two_languages_is_not_sure(tmp_path: Path) -> None:
    mixed = " ".join(f"{a} {b}" for a, b in zip(PROSE["en"].split(), PROSE["de"].split(), strict=False))
    asked: dict[str, Any] = {"keep": ["en"], "least": 1.0}
    assert reason(one("language", mixed, tmp_path, **asked)) in ("language is not sure", "another language")
    assert reason(one("language", PROSE["en"] + " " + PROSE["de"][:100], tmp_path, **asked)) == "language is not sure"


def test_short_rows_and_rows_of_numbers_stay_as_they_are(tmp_path: Path) -> None:
    for text in ("Guten Morgen", "3.14159 " * 100, ""):
        assert one("language", text, tmp_path) == {"text": text, "source": "web", "language": "en"}
    assert reason(one("language", "Guten Morgen liebe Leute", tmp_path, shortest=5)) == "another language"


def test_a_row_whose_language_nobody_said_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="common.data.blocks.language"):
        [row] = applied("language", [{"text": PROSE["de"], "source": "nobody-said"}], tmp_path)
    assert reason(row) is None
    assert "rows of nobody-said are not checked: it declares no language, and keep names none" in caplog.text


def test_a_long_row_is_judged_by_pieces_of_its_whole_length(tmp_path: Path) -> None:
    text = PROSE["en"] + " " + " ".join([PROSE["de"]] * 20)
    assert reason(one("language", text, tmp_path)) == "another language"
    assert reason(one("language", text[: len(PROSE["en"])], tmp_path)) is None


def test_languages_that_are_written_alike_pass_for_each_other(tmp_path: Path) -> None:
    malay = (
        "Kementerian Kesihatan Malaysia akan memperkenalkan beberapa langkah baharu bagi mengurangkan masa menunggu di "
        "hospital kerajaan, kata menteri dalam sidang akhbar selepas mesyuarat jawatankuasa itu."
    )
    assert reason(one("language", malay, tmp_path, language="id")) is None
    assert reason(one("language", malay, tmp_path, language="nl")) == "another language"


def test_conversations_are_judged_by_all_of_their_texts(tmp_path: Path) -> None:
    row = {"source": "chats", "messages": [{"role": "user", "content": part} for part in PROSE["de"].split(". ")]}
    assert reason(applied("language", [row], tmp_path, keep=["en"])[0]) == "another language"
    assert reason(applied("language", [row], tmp_path, keep=["de"])[0]) is None
    assert tuple(block_of("language").rows) == ALL


def test_a_code_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(ValueError, match=r"keep: py3langid cannot identify 'enn'\. Did you mean 'nn'\?"):
        checked([{"language": {"keep": ["enn"]}}])


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"language\.model is lid\.bin, and .* has no such file"):
        one("language", "x", tmp_path, data=tmp_path, model="lid.bin")


class StandIn:
    """What the block calls of a fastText model: it finds a language by the marks of two of them."""

    def __init__(self) -> None:
        self.f = self

    def get_labels(self) -> list[str]:
        """Return labels as models of many scripts have them."""
        return ["__label__en_Latn", "__label__de_Latn", "__label__sw_Latn", "__label__sw_Arab"]

    def predict(self, line: str, k: int, threshold: float, errors: str) -> list[tuple[float, str]]:
        """Return probabilities and labels, as the library's binding does for one line."""
        assert line.endswith("\n")
        assert line.count("\n") == 1
        likely = "de" if "\u00e4" in line else "sw" if "kwa" in line else "en"
        rest = [(0.1, "__label__sw_Arab")]
        return [(0.45 if likely == "sw" else 0.9, f"__label__{likely}_Latn"), *(rest if likely == "sw" else [])]


def test_a_fasttext_model_is_asked_where_one_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is an extra, and no model is at hand, so something stands in for both."""
    library = types.ModuleType("fasttext")
    library.load_model = lambda path: StandIn()  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "fasttext", library)
    (tmp_path / "lid.bin").write_bytes(b"model")
    given: dict[str, Any] = {"data": tmp_path, "model": "lid.bin"}
    assert reason(one("language", PROSE["de"], tmp_path, keep=["de"], **given)) is None
    found = one("language", PROSE["en"], tmp_path, keep=["de"], **given)
    assert found == Drop("another language", "en 0.90, expected de")
    assert reason(one("language", PROSE["sw"], tmp_path, keep=["sw"], **given)) is None  # both scripts together
    with pytest.raises(ConfigError, match=r"language\.keep: lid\.bin has no 'fr'"):
        one("language", "x", tmp_path, keep=["fr"], **given)


def test_a_file_that_is_no_fasttext_model_is_named(tmp_path: Path) -> None:
    pytest.importorskip("fasttext")
    (tmp_path / "lid.bin").write_bytes(b"no model")
    with pytest.raises(DataError, match=r"language\.model: lid\.bin is no fastText model that can be loaded"):
        one("language", "x", tmp_path, data=tmp_path, model="lid.bin")
