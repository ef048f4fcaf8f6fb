"""What others wrote reaches Markdown as text: no heading, link, picture, tag or further cell comes of it."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from common.errors import visible
from common.report.markdown import code, details, plain, prose, table

HOSTILE = [
    "# heading", "## heading #", "#", "- item", "+ item", "* item", "1. item", "12) item", "> quote", "---", "===",
    "- - -", "***", "___", "__bold__", "_it_", "**bold**", "*it*", "~~gone~~", "`code`", "``co`de``", "```", "~~~",
    "[x](javascript:alert(1))", "[x][1]", "[1]: http://a", "![x](http://a/pixel.png)", "<img src=http://a/pixel.png>",
    "<script>alert(1)</script>",
    "<!-- hidden -->", "<https://example.org>", "a | b | c", "|---|---|", "&lt;b&gt; &#35;",
    "a\\", "\\*a\\*", "a  \nb", "line\n===\nline", "line\n---", "\n\n# far below", "    indented", "\tindented",
    "$x$ $$y$$", "\x1b[2J\u202e", "[^1]: note", "<details><summary>", "a_b_c __d__", "_*_`[`]_",
]  # fmt: skip
READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def kinds(tokens: list[Token]) -> set[str]:
    inner = (child for token in tokens for child in token.children or ())
    return {token.type for token in (*tokens, *inner)}


def shown(tokens: list[Token]) -> str:
    return "".join(child.content if child.content else "\n" for token in tokens for child in token.children or ())


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_one_paragraph_and_read_as_it_stands(text: str) -> None:
    tokens = READER.parse(plain(text))
    assert kinds(tokens) <= {"paragraph_open", "inline", "paragraph_close", "text", "text_special"}
    if text.isprintable():
        assert shown(tokens) == " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE)
def test_prose_keeps_its_lines_and_nothing_else(text: str) -> None:
    tokens = READER.parse(prose(f"{text}\n\nsecond\n{text}"))
    assert kinds(tokens) <= {"paragraph_open", "inline", "paragraph_close", "text", "text_special", "softbreak"}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_is_one_piece_of_code(text: str) -> None:
    tokens = READER.parse(f"before {code(text)} after")
    assert [child.type for child in tokens[1].children or ()] == ["text", "code_inline", "text"]
    assert len(tokens) == 3


@pytest.mark.parametrize("text", HOSTILE)
def test_a_table_keeps_its_columns(text: str) -> None:
    body = table([text, "x"], {plain(text): plain, "Code": code, "Last": lambda _: "end"}, text=2)
    tokens = READER.parse(body)
    assert sum(token.type == "td_open" for token in tokens) == 6
    assert sum(token.type == "th_open" for token in tokens) == 3
    assert kinds(tokens).isdisjoint({"html_inline", "link_open", "image", "strong_open", "em_open", "s_open"})


@pytest.mark.parametrize("text", HOSTILE)
def test_a_folded_block_ends_where_it_should(text: str) -> None:
    inside = f"{text}\n```\n</details>\n# heading\n`````\n"
    tokens = READER.parse(details(text, "yaml", inside))
    assert [token.type for token in tokens if token.type != "html_block"] == ["fence"]
    assert next(token.content for token in tokens if token.type == "fence").startswith(
        visible(text.splitlines()[0], "\t")
    )
    summary = tokens[0].content.split("<summary>")[1].partition("</summary>")[0]
    assert "<" not in summary


def test_ordinary_texts_stay_as_they_are() -> None:
    for text in ("cc-by-sa-4.0", "Ward notes (2024), 3rd edition", "snake_case_name", "R&D: 5 % < no", "Öl, 漢字", "—"):
        assert plain(text).replace("\\<", "<") == text
        assert code(text) == f"`{text}`"
    assert code("") == code(None) == "—"


def test_megabytes_are_cut() -> None:
    assert len(plain("x" * 5_000_000)) == len(code("x" * 5_000_000)) - 2 == 300
    assert len(prose("word\n" * 5_000_000)) <= 20_000
