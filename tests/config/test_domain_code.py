"""What exam files name beyond their folder cannot be consented to, however it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config.domain_code import EXAMS, read_code, runnable
from common.errors import ConfigError
from common.system import outside_code


def folder_with(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text(text, encoding="utf-8")
    return tmp_path / "mine"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("task: t\nprocess_docs: !function .tmp.evil.helper.run", r"!function \.tmp\.evil\.helper\.run leads out"),
        ("task: t\nprocess_docs: !function /tmp/evil.run", r"!function /tmp/evil\.run leads out of the folder"),
        ("task: t\nprocess_docs: !function ../evil.run", r"leads out of the folder"),
        ("task: t\nfilter_list: [{function: !function ..evil.run}]", r"leads out of the folder"),
        ("task: t\ninclude: ../../evil.yaml", r"evil\.yaml is no file of .*eval that can be consented to"),
        ("task: t\ninclude: /tmp/evil.yaml", r"include: /tmp/evil\.yaml is no file"),
        ("task: t\ninclude: [part, /tmp/evil.yaml]", r"include: /tmp/evil\.yaml is no file"),
        ("task: t\ninclude: rows.jsonl", r"include: rows\.jsonl is no file"),
        ("task: t\ninclude: ../rewards.py", r"include: \.\./rewards\.py is no file"),
        ("task: t\ninclude: ../data.yaml", r"include: \.\./data\.yaml is no file"),
        ("group: g\ntask: [{task: t, include: ~/evil.yaml}]", r"include: ~/evil\.yaml is no file"),
        ("task: t\nmetric_list: [{metric: someone/metric, hf_evaluate: true}]", r"hf_evaluate fetches a metric's code"),
    ],
)  # fmt: skip
def test_what_leads_out_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    files = {
        "eval/task.yaml": text,
        "eval/part": "a: 1",
        "eval/rows.jsonl": "include: x",
        "rewards.py": "",
        "data.yaml": "",
    }
    with pytest.raises(ConfigError, match=expected):
        read_code(folder_with(tmp_path, files))


def test_what_is_included_is_looked_at_too(tmp_path: Path) -> None:
    files = {"eval/task.yaml": "task: t\ninclude: part", "eval/part": "include: below/part.txt.yaml\n"}
    with pytest.raises(ConfigError, match=r"part: include: below/part\.txt\.yaml is no file"):
        read_code(folder_with(tmp_path, files))
    more = {"eval/below/part.txt.yaml": "include: ../list.yaml", "eval/list.yaml": "group: g\ntask: [a]\n"}
    read = read_code(folder_with(tmp_path, more))
    assert set(read.code) == {"eval/task.yaml", "eval/part", "eval/below/part.txt.yaml"}
    assert set(read.lists) == {"eval/list.yaml"}


def test_what_cannot_be_read_within_bounds_is_refused(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    for text, why in ((f"task: t\n{bomb}", "its aliases repeat more than"), ("[" * 100_000, "more than 100 lists")):
        with pytest.raises(ConfigError, match=rf"task\.yaml: what it would run cannot be read: {why}"):
            read_code(folder_with(tmp_path, {"eval/task.yaml": text}))
    assert (
        "eval/LICENSE"
        in read_code(folder_with(tmp_path, {"eval/task.yaml": "task: t", "eval/LICENSE": "a: b: c"})).code
    )


def test_all_but_settings_and_data_is_code(tmp_path: Path) -> None:
    files = dict.fromkeys(
        [
            "rewards.py",
            "helper",
            "x.so",
            "stages.yaml",
            "data.yaml",
            "knowledge.yaml",
            "README.md",
            "texts/a.jsonl",
            "n.txt",
        ],
        "",
    )
    read = read_code(folder_with(tmp_path, files))
    assert set(read.code) == {"rewards.py", "helper", "x.so"}
    assert {"texts/a.jsonl", "n.txt", "stages.yaml"} <= set(read.data)


def test_a_folder_without_code_of_exams_needs_no_consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside_code, "_allowed", set())
    folder = folder_with(tmp_path, {"eval/list.yaml": "group: g\ntask: [a]\n", "rewards.py": "raise SystemExit"})
    copied = runnable(folder, EXAMS)
    assert (copied / "eval" / "list.yaml").is_file()
    assert not (copied / "rewards.py").exists()  # nobody allowed it
