"""The block that masks personal data: in every text of a row, by placeholders or by fakes that are nobody's."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from common.config.blocks import BlockContext, Drop, Row, block_of, checked
from common.data.blocks.pii import PiiSettings, start
from common.data.personal.finding import find_personal
from common.errors import ConfigError

pytest.importorskip("phonenumbers")
pytest.importorskip("stdnum")
TEXT = "Mail jane.doe@firm.org or call +49 30 901820, pay to DE89 3704 0044 0532 0130 00, from 185.60.216.35."


def masked(row: Row, folder: Path, **settings: Any) -> Row:
    found = start(PiiSettings(**settings), BlockContext(folder=folder, role="cpt"))(row)
    assert not isinstance(found, Drop)
    return found


def test_placeholders_stand_in_and_are_noted(tmp_path: Path) -> None:
    found = masked({"text": TEXT, "source": "a"}, tmp_path)
    assert found["text"] == "Mail <EMAIL> or call <PHONE>, pay to <IBAN>, from <IP>."
    assert found["changed"] == ("mail masked", "phone masked", "iban masked", "ip masked")
    assert masked({"text": found["text"], "source": "a"}, tmp_path) == {"text": found["text"], "source": "a"}


def test_every_text_of_a_conversation_is_masked(tmp_path: Path) -> None:
    call = {"function": {"name": "send", "arguments": {"to": ["a.b@firm.org"]}}}
    row = {
        "source": "a", "prompt": [{"role": "user", "content": "I am a.b@firm.org"}],
        "chosen": [{"role": "assistant", "content": "", "tool_calls": [call]}],
        "rejected": [{"role": "assistant", "content": "no", "reasoning_content": "a.b@firm.org?"}],
    }  # fmt: skip
    found = masked(row, tmp_path)
    assert "firm" not in str(found)
    assert str(found).count("<EMAIL>") == 3
    assert found["changed"] == ("mail masked",)
    assert "firm" in str(row)  # the given row is not touched


def test_only_the_kinds_that_are_asked_for(tmp_path: Path) -> None:
    found = masked({"text": TEXT, "source": "a"}, tmp_path, kinds=["mail"])
    assert found["text"] == TEXT.replace("jane.doe@firm.org", "<EMAIL>")


def test_fakes_keep_the_form_and_are_nobodys(tmp_path: Path) -> None:
    text = f"{TEXT} Card 4111 1111 1111 1111. SSN 859-56-0028. Again jane.doe@firm.org"
    found = masked({"text": text, "source": "a"}, tmp_path, replacement="fake")["text"]
    expected = (
        r"Mail ([a-z]{4}\.[a-z]{3}@example\.(?:com|org|net)) or call \+49 \d\d \d{6}, pay to DE\d\d \d{4} \d{4} "
        r"\d{4} \d{4} \d\d, from [\d.]+\. Card \d{4} \d{4} \d{4} \d{4}\. SSN \d{3}-\d\d-\d{4}\. Again (\S+)"
    )
    same = re.fullmatch(expected, found)
    assert same is not None
    assert same[1] == same[2]
    assert found == masked({"text": text, "source": "b"}, tmp_path, replacement="fake")["text"]
    assert find_personal(found, ("mail", "ip", "phone", "iban", "card", "ssn")) == []


def test_names_without_presidio_are_one_error_before_anything(tmp_path: Path) -> None:
    if importlib.util.find_spec("presidio_analyzer") is not None:
        pytest.skip("presidio is installed")
    with pytest.raises(ConfigError, match=r"names needs presidio, which is not installed. Install the extra `names`"):
        start(PiiSettings(names=True), BlockContext(folder=tmp_path, role="cpt"))


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pii\.regions: XX is no country of phonenumbers"):
        start(PiiSettings(regions=("US", "XX")), BlockContext(folder=tmp_path, role="cpt"))
    with pytest.raises(ValidationError, match="one is named twice"):
        PiiSettings(kinds=("mail", "mail"))
    with pytest.raises(ValueError, match="kinds"):
        checked([{"pii": {"kinds": ["post"]}}])
    assert block_of("pii").start is not None
