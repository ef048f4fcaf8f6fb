"""A manifest is checked as a whole when it is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from common.data.manifest.manifest import load_manifest
from common.errors import DataError
from tests.data.manifest.manifests import CPT, EXAM, HUB, load, mistakes, problems, write_rows
from tests.imports import imported

CHAT = {"role": "sft", "columns": {"question": "q", "answer": "a"}}
ENGLISH = {"languages": ["en", "sw"]}
WRITTEN = EXAM | {"choices": None, "match": "text"}


def test_a_right_manifest(folder: Path) -> None:
    corpus = load(folder, CPT, EXAM, top={"settings": {"cpt": {"tokens": 1000}}})
    assert corpus.domain_title == "T"
    assert corpus.manifest.settings == {"cpt": {"tokens": 1000}}


def test_loading_imports_nothing_heavy(folder: Path) -> None:
    load(folder, CPT, EXAM)
    code = (
        "from pathlib import Path; from common.data.manifest.manifest import load_manifest\n"
        f"load_manifest(Path({str(folder / 'data.yaml')!r}), None)"
    )
    assert imported(code, "torch", "transformers", "datasets", "pyarrow") == []


# --- keys and values: ConfigError ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colums": {}}, "sources.texts.colums: unknown key. Did you mean 'columns'?"),
        ({"role": "train"}, "sources.texts.role: expected pretrain, cpt"),
        ({"weight": 0}, "sources.texts.weight: expected more than 0 and at most 1,000; got 0."),
        ({"heldout": 1}, "sources.texts.heldout: expected at least 0 and less than 1; got 1."),
        ({"path": 5}, "sources.texts.path: expected text or a list; got 5."),
        ({"path": None}, "needs either path (files) or hub (a data set of the Hub), and not both"),
        ({"hub": "o/n"}, "needs either path (files) or hub"),
        ({"split": "train"}, "split only makes sense with hub, or with a folder"),
        ({"path": None, "hub": "o/n"}, "needs split (train, validation, test, ...)"),
        (EXAM | {"side": None}, "role eval needs side: domain or general"),
        ({"role": "eval", "side": "domain", "weight": 2}, "weight only makes sense in training"),
        ({"role": "eval", "side": "domain", "control_tokens": ["<a>"]}, "control_tokens only makes sense in training"),
        ({"side": "domain"}, "side only makes sense with role eval, not cpt"),
        ({"role": "sft", "columns": {"messages": "m"}, "heldout": 0.1}, "heldout only makes sense for text rows"),
        ({"role": "replay", "columns": {"messages": "m"}, "heldout": 0.1}, "heldout only makes sense for text rows"),
        ({"columns": {"messages": "m"}}, "role cpt takes text rows"),
        ({"path": "a.txt", "columns": {"text": "t"}}, "text files have no columns"),
        ({"path": "a.txt", "role": "sft"}, "role sft needs columns, so no text file"),
        ({"role": "sft", "question": "Why?"}, "columns of role sft must name messages or answer + question or compl"),
        (CHAT | {"columns": {"chosen": "c"}}, "unknown column name 'chosen' on our side"),
        ({"columns": {"text": "t", "txt": "t"}}, "unknown column name 'txt' on our side. Did you mean 'text'?"),
        (
            {"columns": {"messages": ["a", "b"]}},
            "'messages' is a list of columns; only choices, context, prompt, question, text",
        ),
        ({"header": ["a"]}, "header only makes sense with csv and tsv files"),
        ({"path": "a.tsv", "header": ["a", "a"]}, "header must give each column its own name; it is ['a', 'a']"),
        ({"gated": True}, "gated only make sense with hub"),
        (
            {"language": "German"},
            "language is 'German'; expected an ISO 639 code in small letters, as en, sw or zh-hans",
        ),
        ({"language": "zh-Hans"}, "as en, sw or zh-hans; write zh-hans"),
        ({"where": {"kind": {"a": 1}}}, "where.kind is {'a': 1}; expected a value, or a list of values"),
        ({"where": {"kind": []}}, "where.kind is []; expected a value, or a list of values"),
        ({"path": "a.txt", "cut": "line"}, "cut is for text columns; text files have unit"),
        ({"path": "a.txt", "each": "x"}, "text files have no columns"),
        (CHAT | {"cut": "line"}, "cut only makes sense for text rows, not for chat rows"),
        ({"question": "Why?"}, "role cpt takes text rows; give columns: {text: ...}, a form such as qa, or"),
        (CHAT | {"question": "Why?"}, "the question is given twice: as a column and as a fixed text; keep one"),
        (CHAT | {"question": "Why?", "columns": {"answer": "a"}}, "question for every record needs columns.context"),
        (CHAT | {"question": "为什么" * 8, "columns": {"context": "c", "answer": "a"}}, "record may have 12 words"),
        (CHAT | {"question": "Why " * 13, "columns": {"context": "c", "answer": "a"}}, "record may have 12 words"),
        (CHAT | {"question": "Why?", "columns": {"messages": "m"}}, "question only makes sense with columns context"),
        (CHAT | {"match": "text"}, "match only makes sense with role eval, for questions with written answers"),
        (CHAT | {"final": "####"}, "final only makes sense for written answers: with match, or with role prompts"),
        ({"turns": "fix"}, "turns only makes sense for conversations"),
        (EXAM | {"system_turns": "fold"}, "system_turns only makes sense for conversations"),
        (WRITTEN | {"index_from": 1}, "index_from only makes sense with choices"),
        (WRITTEN | {"answer_by": "mark"}, "answer_by only makes sense with choices"),
        (CHAT | {"role": "prompts", "heldout": 0.1}, "heldout only makes sense for text rows"),
        (EXAM | {"match": "text"}, "match only makes sense for written answers, and this exam has choices"),
        (EXAM | {"final": "####"}, "final only makes sense for written answers, and this exam has choices"),
        (EXAM | {"choices": ["a", "A "]}, "choices lists an answer twice: a, A"),
        (WRITTEN | {"match": None}, "or match: text or number, where answers are written out"),
        (WRITTEN | {"match": "words"}, "sources.exam.match: expected text or number; got 'words'."),
        (WRITTEN | {"choices": ["a", "b"]}, "match only makes sense for written answers, and this exam has choices"),
        (WRITTEN | {"columns": {"question": "q", "answer": "a", "answers": "b"}}, "give answer (one) or answers (seve"),
        (EXAM | {"columns": {"question": "q", "answers": "a"}}, "columns.answers only makes sense for written answers"),
        (EXAM | {"columns": {"question": "q", "answer": "a", "choices": "c"}}, "or a fixed list (choices), not both"),
        ({"choices": ["a", "b"]}, "choices must list at least two answers, and only makes sense with role eval"),
        (EXAM | {"choices": None}, "an exam needs choices: either a column (columns.choices) or a fixed"),
        (EXAM | {"choices": ["a"]}, "choices must list at least two answers"),
        ({"id": "a b"}, "sources.a b.id: expected letters, digits"),
        ({"form": "q"}, "sources.texts.form: there is no form 'q'. Did you mean 'qa'?"),
        ({"form": "qa", "columns": {"text": "t"}}, "unknown column name 'text' on our side"),
        (CHAT | {"form": "qa"}, "form qa is for role cpt or pretrain or replay, not sft"),
        (
            CHAT | {"form": "qa", "role": "eval", "side": "domain"},
            "form qa is for role cpt or pretrain or replay, not e",
        ),
        (
            {"form": {"translation": ENGLISH}, "columns": {"source": "s", "target": "t"}},
            "is for role sft or replay, no",
        ),
        (
            {"form": {"translation": ENGLISH}, "role": "replay", "heldout": 0.1},
            "heldout only makes sense for text rows",
        ),
        ({"form": "qa", "path": "a.txt"}, "form qa needs columns, so no text file"),
        ({"form": {"qa": {"betwen": "x"}}}, "sources.texts.form: qa.betwen: unknown key. Did you mean 'between'?"),
    ],
)
def test_wrong_keys_and_values(folder: Path, change: dict[str, Any], message: str) -> None:
    text = mistakes(folder, CPT | change)
    assert message in text
    assert text.startswith(f"{folder / 'data.yaml'}: ")
    assert len(text.splitlines()) == 1


def test_missing_keys(folder: Path) -> None:
    facts = {"path": "texts.jsonl", "licence": "mit"}
    assert "sources.x.role is missing" in mistakes(folder, facts | {"id": "x"})
    assert "data.yaml: sources.number 1.id is missing" in mistakes(folder, facts | {"role": "cpt"})
    assert "data.yaml: no enabled source to train on" in problems(folder)
    assert "sorces: unknown key. Did you mean 'sources'?" in mistakes(folder, CPT, top={"sorces": []})


def test_all_problems_at_once_one_line_each(folder: Path) -> None:
    text = mistakes(folder, CPT | {"colums": {}, "weight": -1}, CPT | {"id": "gone", "path": "gone.jsonl"}, EXAM)
    first, *lines = text.splitlines()
    assert first == f"{folder / 'data.yaml'} has 3 problems:"
    starts = ["  - sources.texts.weight", "  - sources.texts.colums", "  - source 'gone'"]
    assert [line.split(":")[0] for line in lines] == starts
    text = problems(folder, CPT | {"licence": ""}, CPT, EXAM | {"path": "none.jsonl"})
    assert text.splitlines()[0].endswith("3 problems:")


def test_problems_between_sources_are_told_beside_wrong_keys(folder: Path) -> None:
    leak = CPT | {"id": "leak", "path": "exam.jsonl", "columns": {"text": "question"}}
    text = mistakes(folder, CPT | {"colums": {}, "licence": ""}, leak, leak, EXAM)
    assert "sources.texts.colums: unknown key" in text
    assert "source 'texts': licence is empty" in text
    assert "source 'leak': 2 sources have this id" in text
    assert text.count("source 'leak': trains on exam.jsonl, which source 'exam' uses as an exam") == 2
    assert text.splitlines()[0].endswith("5 problems:")


# --- files, columns, licences, gates: DataError -----------------------------------------------------------------------


def test_manifest_that_is_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    with pytest.raises(DataError, match=r"data\.yaml: no such file"):
        load_manifest(path, None)
    path.write_text("- a\n")
    with pytest.raises(DataError, match=r"holds no keys at its top level. Expected title and sources"):
        load_manifest(path, None)
    with pytest.raises(DataError, match=r"data_root=.*nowhere is not a folder"):
        load_manifest(path, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "text.jsonl"}, "no file text.jsonl below {root}. Did you mean 'texts.jsonl'? Or pass data_root="),
        ({"path": "*.csv"}, "no file matches *.csv below {root}"),
        ({"path": "."}, ". is a folder. Give its files"),
        ({"path": "/etc/hosts"}, "path /etc/hosts leaves the data folder {root}. Give a path below it, and"),
        ({"path": "../texts.jsonl"}, "path ../texts.jsonl leaves the data folder"),
        ({"path": "data.yaml"}, "data.yaml: format '.yaml' cannot be read. Expected .jsonl"),
        ({"path": "empty.jsonl"}, "empty.jsonl is empty"),
        ({"path": "blank.jsonl"}, "blank.jsonl has no row"),
        ({"path": "broken.jsonl"}, "broken.jsonl, line 1: not valid JSON"),
        ({"columns": {"text": "bodi"}}, "has no column 'bodi' (for text). It has: text, body. Did you mean 'body'?"),
        ({"columns": {"text": "body.0.x"}}, "has no column 'body.0.x' (for text). It has: text, body."),
        ({"licence": " "}, "licence is empty; name it"),
        ({"skip": 20}, "texts.jsonl has no row after the 20 that skip leaves out"),
        ({"where": {"body": "c"}}, "no record of texts.jsonl has where body: c"),
        ({"where": {"bdy": "b"}}, "has no column 'bdy' (for where). It has: text, body. Did you mean 'body'?"),
        ({"each": "texts"}, "texts.jsonl has no column 'texts' (for each). It has: text, body. Did you mean 'text'?"),
        ({"each": "text"}, "texts.jsonl: column 'text' (each) is no list"),
    ],
)
def test_problems_of_a_source(folder: Path, change: dict[str, Any], message: str) -> None:
    for name, content in {"empty": "", "blank": "\n\n", "broken": "{"}.items():
        (folder / f"{name}.jsonl").write_text(content)
    text = problems(folder, CPT | change, EXAM)
    assert text.startswith(f"{folder / 'data.yaml'}: source 'texts': ")
    assert message.format(root=folder) in text


def test_a_link_may_not_leave_the_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.jsonl"
    write_rows(outside, [{"text": "x"}])
    (folder / "link.jsonl").symlink_to(outside)
    assert "path link.jsonl is a link that leaves the data folder" in problems(folder, CPT | {"path": "link.jsonl"})
    (folder / "inner.jsonl").symlink_to(folder / "texts.jsonl")
    load(folder, CPT | {"path": "inner.jsonl"})


def test_paths_start_at_data_root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("recipe")
    corpus = load(elsewhere, CPT, EXAM, root=folder)
    assert len(list(corpus.rows("cpt"))) == 20


def test_globs_are_sorted_and_read_each_file_once(folder: Path) -> None:
    for name in ("b", "a"):
        (folder / f"{name}.txt").write_text(name)
    corpus = load(folder, CPT | {"path": ["b.txt", "*.txt"]})
    assert [row["text"] for row in corpus.rows("cpt")] == ["b", "a"]


def test_gated_needs_a_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: os.environ.get("HF_TOKEN"))
    message = "source 'hub': is gated and there is no token. Accept its terms on https://huggingface.co/datasets/o/n, "
    assert message in problems(folder, HUB | {"gated": True}, CPT)
    load(folder, HUB | {"gated": True, "enabled": False}, CPT)
    monkeypatch.setenv("HF_TOKEN", "x")
    load(folder, HUB | {"gated": True}, CPT)


def test_one_id_twice(folder: Path) -> None:
    assert "source 'texts': 2 sources have this id" in problems(folder, CPT, CPT)


def test_essential_roles(folder: Path) -> None:
    load(folder, CPT, EXAM, essential=["cpt", "questions_domain"])
    text = problems(folder, CPT, EXAM, HUB | {"enabled": False}, essential=["sft", "questions_general", "preference"])
    assert "no enabled source has rows for sft. Enable one of 'hub'" in text
    assert (
        "rows for questions_general. Add one with role: eval, side: general and question, answer and choices (or"
        in text
    )
    assert "rows for preference. Add one with role: preference" in text
    assert "no enabled source to train on" in problems(folder, EXAM)
    assert "no enabled source to train on" in problems(folder, HUB | {"role": "prompts", "columns": CHAT["columns"]})
    also = "role: eval, side: domain and a text column, or a heldout share on role cpt"
    assert also in problems(folder, CPT, essential=["text_domain"])


# --- every manifest in the repository -----------------------------------------------------------------------------


SHIPPED = sorted(Path(__file__).parents[3].glob("domains/*/data.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_manifests_load(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HF_TOKEN", "x")
    corpus = load_manifest(path, None, essential=["cpt", "replay", "sft", "questions_domain"])
    assert any(source.role in ("preference", "prompts") for source in corpus.manifest.sources if source.enabled)
    assert all(source.evidence and source.hub for source in corpus.manifest.sources)
    for source in corpus.manifest.sources:
        assert not (source.enabled and source.gated), f"{source.id} is gated and enabled"
        assert not source.enabled or source.evidence != "U", f"{source.id} is unverified and enabled"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delimiter": ";"}, "delimiter only makes sense with csv and tsv files"),
        ({"path": "a.csv", "delimiter": "::"}, "delimiter is '::'; expected one sign, such as ';' or '|', or tab"),
        ({"quoting": True}, "quoting only makes sense with csv and tsv files"),
        ({"path": "a.csv", "records": "data"}, "records only makes sense with json and jsonl and ndjson files"),
        ({"encoding": "utf-9"}, "encoding is 'utf-9', which is no encoding of files here. Did you mean 'utf-8'?"),
        ({"encoding": "base64"}, "encoding is 'base64', which is no encoding of files here."),
        ({"encoding": "punycode"}, "encoding is 'punycode', which is no encoding of files here."),
        ({"encoding": "undefined"}, "encoding is 'undefined', which is no encoding of files here."),
        ({"encoding": "a\0b"}, r"encoding is 'a\x00b', which is no encoding of files here."),
        ({"path": "a.parquet", "encoding": "cp1252"}, "encoding only makes sense with files of text: csv, tsv, txt"),
        ({"split": "test"}, "split only makes sense with hub, or with a folder of save_to_disk"),
    ],
)
def test_keys_about_how_files_are_written(folder: Path, change: dict[str, Any], message: str) -> None:
    assert message in mistakes(folder, CPT | change)
