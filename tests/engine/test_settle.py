"""A model of the Hub that is named without its commit is looked up once, and the commit is noted beside the results."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from common.cli.main import main
from common.config.resolve import Resolved, resolve
from common.data.manifest.revisions import NAME
from common.engine.frozen_plan import frozen
from common.engine.settle import settled
from common.errors import ConfigError, DataError
from common.models.source import HubUnreachable, commit_of, fetch
from tests.conftest import REPOSITORY

COMMIT = "c" * 40
SECRET = "hf_verysecrettoken"


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the Hub does for owner/name alone."""

    asked: ClassVar[list[str]] = []  # of models

    def do_GET(self) -> None:
        if "models" in self.path:  # the client has questions of its own
            self.asked.append(self.path)
        known = self.path.startswith("/api/models/owner/name")
        lost = "RevisionNotFound" if self.path.endswith("gone") else "RepoNotFound"
        body = json.dumps({"id": "owner/name", "sha": COMMIT} if known else {"error": "no"}).encode()
        self.send_response(200 if known and not self.path.endswith("gone") else 404)
        self.send_header("X-Error-Code", lost)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A Hub on this machine, and what it was asked for."""
    monkeypatch.setattr(Hub, "asked", [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    yield Hub.asked
    server.shutdown()
    server.server_close()


def run_of(out: Path, **words: str) -> Resolved:
    return resolve({"domain": "medical", "out": str(out), "model.path": "owner/name", **words}, REPOSITORY)


def test_a_commit_is_asked_for_once_and_used_offline(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = settled(run_of(tmp_path))
    assert first.config.model.revision == COMMIT
    assert first.origins["model.revision"] == f"the Hub, noted in {NAME}"
    assert json.loads((tmp_path / NAME).read_text()) == {"models/owner/name@main": COMMIT}
    assert len(asked) == 1
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = settled(run_of(tmp_path))
    assert again.config == first.config
    assert frozen(again)["config"]["model"]["revision"] == COMMIT
    assert SECRET not in json.dumps(frozen(again)) + (tmp_path / NAME).read_text()
    assert settled(run_of(tmp_path), None).config.model.revision == COMMIT


def test_a_branch_and_a_reward_model_are_looked_up_too(asked: list[str], tmp_path: Path) -> None:
    found = settled(run_of(tmp_path, pipeline="rlhf", **{"model.revision": "v1", "reward.path": "owner/name-reward"}))
    assert found.config.model.revision == COMMIT
    assert found.config.stages["reward"].model_dump()["revision"] == COMMIT
    assert json.loads((tmp_path / NAME).read_text()) == {
        "models/owner/name-reward@main": COMMIT, "models/owner/name@v1": COMMIT,
    }  # fmt: skip


def test_a_commit_that_is_given_is_taken_as_it_is(asked: list[str], tmp_path: Path) -> None:
    resolved = run_of(tmp_path, **{"model.revision": "d" * 40})
    assert settled(resolved) is resolved
    assert not asked


def test_newest_data_asks_again(asked: list[str], tmp_path: Path) -> None:
    settled(run_of(tmp_path))
    settled(run_of(tmp_path, **{"run.newest_data": "true"}))
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"model.path": "other/name"}, r"^model\.path=other/name: the Hub has no such model, or"),
        ({"model.revision": "gone"}, r"^model\.path=owner/name has no branch, tag or commit 'gone'"),
        ({"model.path": "owner/na me"}, r"^model\.path=owner/na me is no name that the Hub allows"),
    ],
)  # fmt: skip
def test_what_the_hub_does_not_have_is_said(
    words: dict[str, str], expected: str, asked: list[str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=expected):
        settled(run_of(tmp_path, **words))


def test_offline_without_a_note_one_line_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["plan", "domain=medical", "model.path=owner/name", f"out={tmp_path}"]) == 1
    assert capsys.readouterr().err == (
        "error: model.path=owner/name needs model.revision=<commit>, as HF_HUB_OFFLINE is set. A run that reaches the "
        "Hub once finds and notes the commit by itself; a folder with the checkpoint needs none.\n"
    )
    assert main(["config", "domain=medical", "model.path=owner/name", f"out={tmp_path}"]) == 0
    with pytest.raises(ConfigError, match=r"model\.revision=main may move, as HF_HUB_OFFLINE is set; give the commit"):
        commit_of(run_of(tmp_path, **{"model.revision": "main"}).config.model)
    with pytest.raises(HubUnreachable, match="cannot be reached"):
        fetch(run_of(tmp_path, **{"model.revision": COMMIT}).config.model)
