"""What a run needs is asked for before anything is spent, all of it at once, and by single stages too."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path

import pytest

from common.config.resolve import resolve
from common.console import Console
from common.data.knowledge import corpus
from common.engine.corpora import open_corpus
from common.engine.environment import hub_answers, needs_hub
from common.engine.frozen_plan import freeze
from common.engine.preflight import benchmarks
from common.engine.run import execute, run_stage
from common.errors import ConfigError, DataError
from common.evaluation import extra
from tests.conftest import QUICK, REPOSITORY


@pytest.fixture
def words(tmp_path: Path) -> dict[str, str]:
    return {"domain": "medical", "out": str(tmp_path), **QUICK}


def made(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("artifacts/*"))


@pytest.mark.long
def test_benchmarks_are_asked_for_first(words: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "check_reachable", lambda tasks: None)
    resolved = resolve(words | {"evaluate.tasks": "[no_such_exam]"}, REPOSITORY)
    with pytest.raises(ConfigError, match="lm-evaluation-harness has no task 'no_such_exam'"):
        execute(resolved, Console("quiet"))
    assert made(tmp_path) == []


def test_rows_and_benchmarks_are_reported_together(words: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(self: object, roles: object) -> None:
        raise DataError("The rows are broken.")

    def tasks(names: object, folders: object) -> None:
        raise DataError("The benchmark could not be loaded.")

    monkeypatch.setattr(corpus.EmbeddedCorpus, "check_rows", rows)
    monkeypatch.setattr(extra, "load", tasks)
    monkeypatch.setattr(benchmarks, "check_reachable", lambda tasks: None)
    resolved = resolve(words | {"exam-merge.tasks": "[arc_easy]"}, REPOSITORY)
    with pytest.raises(DataError) as caught:
        execute(resolved, Console("quiet"))
    assert str(caught.value) == "The rows are broken.\n  The benchmark could not be loaded."


def test_benchmarks_of_a_hub_that_is_not_asked_are_refused_without_the_harness(
    words: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr(extra, "load", lambda *_: pytest.fail("the harness was asked"))
    resolved = resolve(words | {"evaluate.tasks": "[medical_benchmarks]"}, REPOSITORY)
    with pytest.raises(DataError, match=r"^9 benchmark tasks need .*leave the tasks out \(evaluate\.tasks=\[\]\)"):
        execute(resolved, Console("quiet"))
    assert made(tmp_path) == []


@pytest.mark.parametrize(("sources", "found"), [
    ({"old": False}, "needs a source of conversations with role: replay; 'old' has texts"),
    ({}, "needs a source of conversations with role: replay; there is none"),
])  # fmt: skip
def test_replay_without_a_conversation_is_said_before_the_first_stage(
    sources: dict[str, bool], found: str, words: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus.EmbeddedCorpus, "conversations", lambda self, role: sources)
    resolved = resolve(words | {"cpt.replay": "0", "sft.replay": "0.1"}, REPOSITORY)
    with pytest.raises(DataError) as caught:
        execute(resolved, Console("quiet"))
    lines = [line.strip() for line in str(caught.value).splitlines()]  # the control arm has the settings of its stage
    assert lines == [f"{name}.replay=0.1 {found}. Add one, or set {name}.replay=0." for name in ("sft-only", "sft")]
    assert made(tmp_path) == []


def test_a_single_stage_asks_too(words: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    resolved = resolve(words, REPOSITORY)
    check = corpus.EmbeddedCorpus.check_rows

    def rows(self: corpus.EmbeddedCorpus, roles: list[str]) -> None:
        asked.append(roles)
        check(self, roles)

    monkeypatch.setattr(corpus.EmbeddedCorpus, "check_rows", rows)
    for _ in range(2):  # the second finds it made
        run_stage(resolved, "base", Console("quiet"))
    assert asked == [["pretrain", "questions_general"]]


def test_a_frozen_plan_names_the_commits(tmp_path: Path) -> None:
    commits = {"o/a@main": "a" * 40}
    (tmp_path / "hub_revisions.json").write_text(json.dumps(commits))
    words = {"domain": "finance", "model.path": "o/n", "model.revision": "b" * 40, "data": "hub", "out": str(tmp_path)}
    resolved = resolve(words, REPOSITORY)
    assert json.loads(freeze(resolved).read_text())["hub_revisions"] == commits


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers every request with the status that its server was given."""

    def do_HEAD(self) -> None:
        self.send_response(self.server.status)  # type: ignore[attr-defined]  # set by the test below
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize("status", [200, 404, 503])
def test_a_hub_that_says_anything_is_there(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        server.status = status  # type: ignore[attr-defined]  # read by the handler
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert hub_answers()
        thread.join()


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://nowhere.invalid", "no address"])
def test_a_hub_that_says_nothing_is_not(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert not hub_answers()


@pytest.mark.parametrize(
    ("more", "needed"),
    [
        ({}, False),
        ({"publish.to": "hub:owner/name"}, True),
        ({"evaluate.tasks": "[arc_easy]"}, True),
        ({"model.path": "owner/name", "model.revision": "b" * 40}, True),
        ({"model.path": "owner/name", "model.revision": "b" * 40, "data": "hub"}, True),
    ],
)
def test_only_what_needs_the_hub_asks_for_it(more: dict[str, str], needed: bool, words: dict[str, str]) -> None:
    resolved = resolve(words | more, REPOSITORY)
    assert needs_hub(resolved.config, open_corpus(resolved), list(resolved.config.stages.values())) is needed


@pytest.mark.parametrize(("keys", "message"), [
    ({"merge.models.dpo.weigth": "1"}, "merge.models.dpo.weigth: method linear has no parameter 'weigth'"),
    ({"merge.models.dpo.weight": "much"}, r"merge.models.dpo.weight \(command line\): expected a number; got 'much'"),
])  # fmt: skip
def test_a_merge_is_judged_before_the_first_stage(
    keys: dict[str, str], message: str, words: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        execute(resolve(words | keys, REPOSITORY), Console("quiet"))
    assert made(tmp_path) == []


def test_single_answers_are_for_kto_alone(tmp_path: Path) -> None:
    rows = {
        "chats.jsonl": {"question": "What is it?", "answer": "It is so."},
        "kto.jsonl": {"prompt": "What is it?", "completion": "It is so.", "label": True},
        "exam.jsonl": {"question": "Which is it?", "choices": ["one", "two"], "answer": 0},
    }
    for name, row in rows.items():
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    (tmp_path / "data.yaml").write_text(
        "title: T\nsources:\n"
        "  - {id: chats, role: sft, path: chats.jsonl, licence: mit}\n"
        "  - {id: notes, role: cpt, path: chats.jsonl, columns: {text: answer}, licence: mit}\n"
        "  - {id: labels, role: preference, path: kto.jsonl, licence: mit}\n"
        "  - {id: exam, role: eval, side: domain, path: exam.jsonl, licence: mit}\n"
    )
    words = {"domain": "medical", "out": str(tmp_path / "out"), "data": str(tmp_path / "data.yaml"), **QUICK}
    resolved = resolve(words | {"pipeline": "full"}, REPOSITORY)
    message = (
        "Stage dpo: source 'labels' has single answers with a label; only kind kto learns from them. Use pipeline=kto"
    )
    with pytest.raises(DataError, match=message):
        execute(resolved, Console("quiet"))
    assert made(tmp_path / "out") == []
