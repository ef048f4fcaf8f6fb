"""The command that shows rows as they are trained: colours and brackets, widths, whole runs, and errors."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from common.cli.main import main
from common.cli.preview import ASCII, COLOURED, PLAIN, lines_of, marks_for, show
from common.console import Console
from common.data.accounting import RowCount
from common.engine.preview import stage_rows
from common.errors import DataError
from common.report.views import NOT_ASSISTANT, Part, Preview, Reject, Token, View
from common.store.artifacts import write_json

ESCAPE = re.compile(r"\x1b\[[\d;]*m")
WIDE = "مرحبا بالعالم नमस्ते 👩‍🚀🚀 漢字 e\u0301 "


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def part_of(*texts: str, learned: bool = True) -> Part:
    return Part(
        "a part", tuple(Token(text, (n,), False, "" if learned else NOT_ASSISTANT) for n, text in enumerate(texts))
    )


def preview() -> Preview:
    tokens = (
        Token("<|user|>", (1,), True, NOT_ASSISTANT), Token(" what?", (2,), False, NOT_ASSISTANT),
        Token(" a thing\x1b[2J", (3,), False, ""), Token("<|end|>", (4,), True, ""),
    )  # fmt: skip
    counts = (RowCount("faq", "sft", 3, {"too long": 1}, {"cut\x1b": 1}, tokens=4),)
    rejects = (Reject("faq", "too long", "a long\ntext\x1b[31m"),)
    return Preview("sft: row 1 of 1", (View("Row 1", (Part("1.", tokens),), 2),), counts, {("sft", "faq"): 2}, rejects)


def printed(stream: io.StringIO) -> str:
    show(preview(), Console(stream=stream))
    return stream.getvalue()


def test_tokens_with_loss_are_in_brackets_where_there_is_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = printed(io.StringIO())
    assert "     ◆<|user|>·what?⟦·a·thing\\x1b[2J◆<|end|>⟧\n" in plain
    assert "without loss: 2 not the assistant's turn, 2 padding" in plain
    assert "changed, faq: cut\\x1b (1)" in plain
    assert "dropped, faq: too long (1)\n    'a long\\ntext\\x1b[31m'" in plain
    assert "\x1b" not in plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert printed(Terminal()).count("⟦") == 2  # in the legend too


def test_tokens_with_loss_are_green_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    shown = printed(Terminal())
    assert "\x1b[1;32m·a·thing\\x1b[2J\x1b[0m" in shown
    assert "\x1b[1;7;32m<|end|>\x1b[0m" in shown
    assert "⟦" not in shown
    assert "\x1b" not in ESCAPE.sub("", shown)  # the row's own escapes are text


def test_a_stream_that_cannot_write_the_brackets_gets_others() -> None:
    class Latin(io.StringIO):
        encoding = "latin-1"

    assert marks_for(Console(stream=Latin())) == ASCII


@pytest.mark.parametrize("marks", [COLOURED, PLAIN, ASCII])
@pytest.mark.parametrize("width", [24, 40])
def test_lines_keep_to_the_width_and_lose_nothing(marks: Any, width: int) -> None:
    part = part_of(*[WIDE[place : place + 3] for place in range(0, len(WIDE), 3)], "long" * 30, "\n\nb", " c")
    lines = ["".join(text for text, _ in line) for line in lines_of(part, width, marks)]
    assert max(map(cell_len, lines)) <= width
    text = "".join(lines)
    for mark in filter(None, (marks.opening, marks.closing)):
        assert text.count(mark) == len(lines)
        text = text.replace(mark, "")
    assert text == f"{WIDE}{'long' * 30}".replace(" ", "·") + "⏎⏎b·c"


def test_the_middle_of_a_long_document_is_left_out() -> None:
    lines = ["".join(text for text, _ in line) for line in lines_of(part_of(*["ab "] * 1000, learned=False), 60, PLAIN)]
    (note,) = [line for line in lines if line.startswith("…")]
    assert note == "… 600 tokens left out here; html=<file>.html shows them …"
    assert sum(line.count("ab·") for line in lines) == 400


def test_a_secret_that_lines_would_split_is_hidden() -> None:
    secret = "hf_" + "abcdefgh" * 4
    lines = lines_of(part_of("take ", secret[:9], secret[9:], " now"), 24, PLAIN)
    assert "".join(text for line in lines for text, _ in line) == "take·***·now"


Make = Callable[..., list[str]]


@pytest.fixture
def words(tmp_path: Path) -> Make:
    """Write a manifest with rows of some roles, and return the words of a run on it."""

    def make(pipeline: str, **roles: list[dict[str, Any]]) -> list[str]:
        sources = []
        for role, rows in roles.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / f"{role}.jsonl").write_text(lines, encoding="utf-8")
            sources.append({"id": role, "role": role, "path": f"{role}.jsonl", "licence": "mit"})
        exam = {"question": "Which of these opens a harbour?", "choices": ["gate", "sum", "cat", "tin"], "answer": 0}
        (tmp_path / "exam.jsonl").write_text(json.dumps(exam) + "\n", encoding="utf-8")
        sources.append({"id": "exam", "role": "eval", "side": "domain", "path": "exam.jsonl", "licence": "mit"})
        write_json(tmp_path / "data.yaml", {"title": "Own", "sources": sources})
        return ["preview", "domain=medical", f"out={tmp_path}", f"data={tmp_path}/data.yaml", f"pipeline={pipeline}"]

    return make


def chats(*answers: str) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"Where is gate {n}?"}, {"role": "assistant", "content": answer}]}
        for n, answer in enumerate(answers)
    ]


def test_conversations_of_a_manifest(words: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = words("sft-only", sft=chats(*["By the harbour."] * 20, "far " * 500))
    assert main([*given, "stage=sft", "rows=2", "at=3", "sft.replay=0"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^sft: rows 3 to 4 of \d+, in the trainer's order; ", shown)
    assert re.search(r"◆<\|user\|>·Where·is·gate·\d+\?◆<\|end\|>◆<\|assistant\|>⟦·By·the·harbour\.◆<\|end\|>⟧", shown)
    assert re.search(r"sft +sft +21 +1 +0 ", shown)
    assert "dropped, sft: longer than sequence_length (1)\n    'Where is gate 20? ⏐ far far" in shown
    page = tmp_path / "preview.html"
    assert main([*given, "stage=sft", "rows=2", "sft.replay=0", f"html={page}"]) == 0
    assert "Written: " in capsys.readouterr().out
    assert page.read_text(encoding="utf-8").count("<h2>Row ") == 2
    assert not list(tmp_path.glob("artifacts/*"))  # nothing is made


def test_pairs_and_single_answers(words: Make, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [{"prompt": f"Where is it, {n}?", "chosen": "Here.", "rejected": "Nowhere."} for n in range(20)]
    assert main([*words("dpo-only", preference=pairs), "stage=dpo", "rows=1"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"  prompt, source preference\n +◆<\|user\|>·Where·is·it,·\d+\?", shown)
    assert re.search(r"  chosen\n +⟦·Here\.◆<\|end\|>⟧\n  rejected\n +⟦·Nowhere\.◆<\|end\|>⟧", shown)
    singles = [{"prompt": f"Where is it, {n}?", "completion": "Here.", "label": n % 2 == 0} for n in range(20)]
    given = words("kto-only", preference=singles)
    assert main([*given, "stage=kto", "rows=8"]) == 0
    shown = capsys.readouterr().out
    assert {"completion, wanted (label: true)", "completion, unwanted (label: false)"} <= {
        line.strip() for line in shown.splitlines()
    }
    assert main([*words("dpo-only", preference=singles), "stage=dpo"]) == 1
    assert "has single answers with a label; only kind kto learns from them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["stage=merge"], "Stage merge is of kind merge, which trains on nothing, so it has no rows to show. Stages"),
        (["stage=exam-sft"], "Stage exam-sft is of kind evaluate, which trains on nothing"),
        (["stage=sfft"], "has no stage 'sfft'. Did you mean 'sft'?"),
        (["stage=sft", "rows=0"], "rows='0': expected a whole number from 1 to 200."),
        (["stage=sft", "rows=201"], "rows='201': expected a whole number from 1 to 200."),
        (["stage=sft", "at=-1"], "at='-1': expected a whole number from 1."),
        (["stage=sft", "html=rows.txt"], "html=rows.txt: expected the name of a page, such as preview.html."),
        (["stage=dpo", "pipeline=on-policy"], "Stage dpo learns from answers of the stage sample, which is not there"),
    ],
)
def test_what_cannot_be_shown_is_one_clear_error(
    given: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preview", "domain=medical", f"out={tmp_path}", *given]) == 1
    assert expected in capsys.readouterr().err


def test_rows_that_are_all_too_long_are_said_to_be(words: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words("sft-only", sft=chats(*["far " * 500] * 8)), "stage=sft", "sft.replay=0"]) == 1
    shown = capsys.readouterr().err
    assert "Stage sft: the role sft has no usable row (source 'sft': dropped longer than sequence_length 8)" in shown


def test_a_benchmark_that_cannot_be_loaded_is_told_above_the_rows(
    words: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        raise DataError("The data set of quiz cannot be reached.")

    monkeypatch.setattr(stage_rows, "load_benchmarks", load)
    given = [*words("sft-only", sft=chats(*["By the harbour."] * 20)), "sft.replay=0", "evaluate.tasks=[quiz]"]
    assert main([*given, "stage=sft", "rows=1"]) == 0
    shown = capsys.readouterr().out
    assert "Rows that repeat a benchmark are among these, and the run would stop: The data set of quiz" in shown


def test_rows_that_are_cleaned_before_are_shown_as_they_were_left(
    words: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words("sft-only", sft=chats(*["By the harbour wall."] * 20, "No."))
    given += ["clean.blocks=[]", "sft.replay=0"]
    assert main([*given, "stage=sft"]) == 1
    missing = capsys.readouterr().err
    assert "Stage sft reads the cleaned rows of the stage data-sft, which is not there with these settings" in missing
    assert "Make it first: `just data domain=medical role=sft` with the same settings." in missing
    assert main(["data", "role=sft", *given[1:]]) == 0
    capsys.readouterr()
    assert main([*given, "stage=sft", "rows=1"]) == 0
    shown = capsys.readouterr().out
    assert "⟦·By·the·harbour·wall.◆<|end|>⟧" in shown
    assert re.search(r"sft +sft +\d+ +\d+ ", shown)
