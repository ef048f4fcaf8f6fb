"""The page of a preview: what rows say is text of it, and it needs and runs nothing."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from common.data.accounting import RowCount
from common.errors import ConfigError
from common.report.preview_page import page_file, write_page
from common.report.views import CONTEXT, NOT_ASSISTANT, Part, Preview, Reject, Token, View

HOSTILE = "</div><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x1b[2J\u202e"


class Reading(HTMLParser):
    """Tags, attributes and texts of a page; fails where tags are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def page_of(preview: Preview, folder: Path) -> Reading:
    path = page_file(str(folder / "preview.html"))
    write_page(path, preview, "medical")
    page = Reading()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


def preview_of(text: str) -> Preview:
    tokens = (
        Token("<|end|>", (1,), True, NOT_ASSISTANT), Token(text, (2, 3), False, ""), Token(" \nmore", (4,), False, ""),
        Token("wrong", (5,), False, CONTEXT),
    )  # fmt: skip
    view = View(f"Row {text}", (Part(f"source {text}", tokens, (text,)),), padding=7)
    counts = (RowCount(text, "sft", 3, {text: 1}, {text: 1}, tokens=9),)
    return Preview(f"sft {text}", (view,), counts, {("sft", text): 3}, (Reject(text, text, text),), (text,))


def test_what_a_row_says_is_text(tmp_path: Path) -> None:
    page = page_of(preview_of(HOSTILE), tmp_path)
    assert not {"script", "img", "a", "link", "iframe"} & set(page.tags)
    assert {name for name, _ in page.attributes} <= {
        "lang", "charset", "http-equiv", "content", "name", "class", "title", "dir",
    }  # fmt: skip
    shown = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert page.text.count("<script>alert(1)</script>") >= 8  # title, heading, note, part, token, table, lists
    assert shown.replace(" ", "·") in page.text
    assert "\x1b" not in page.text
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_tokens_say_what_they_carry(tmp_path: Path) -> None:
    page = page_of(preview_of("right"), tmp_path)
    titles = [value for name, value in page.attributes if name == "title"]
    assert titles == [
        f"1: {NOT_ASSISTANT}", "2 3: carries loss", "4: carries loss", "4: carries loss", f"5: {CONTEXT}",
    ]  # fmt: skip
    classes = [value for name, value in page.attributes if name == "class"]
    assert {"loss", "control", "context"} <= set(classes)
    assert "7 tokens of padding" in page.text


def test_a_secret_in_a_row_is_hidden_though_tokens_split_it(tmp_path: Path) -> None:
    secret = "hf_" + "abcdefgh" * 4
    tokens = tuple(Token(piece, (1,), False, "") for piece in ("take ", secret[:9], secret[9:], " now"))
    page = page_of(Preview("t", (View("r", (Part("p", tokens),)),), (), {}), tmp_path)
    assert secret[9:] not in page.text
    assert "take·***·now" in page.text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rows.jsonl", "html=rows.jsonl: expected the name of a page, such as preview.html"),
        ("no/such/preview.html", "there is no folder"),
        ("folder.html", "is a folder"),
    ],
)
def test_no_other_file_is_written_over(
    name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ConfigError, match=expected):
        page_file(name)
