import json
from pathlib import Path

import pytest

from common.cli.main import main
from common.data.manifest.manifest import load_manifest
from common.errors import DataError
from common.system.secrets import find, hide

SECRETS = (
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1B2" * 9, "sk-" + "abCD12" * 7,
    "https://me:s3cret-word@host.org/x",
)  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_hidden_and_found(secret: str) -> None:
    assert secret not in hide(f"at {secret} now")
    assert hide(f"at {secret} now").startswith("at ")
    assert find({"sources": [{"id": "a"}, {"note": secret}]}) == "sources.1.note"
    assert secret not in str(find({"x": {secret: 1}}))


@pytest.mark.parametrize(
    "text", ["hf_short", "model.revision=" + "a" * 40, "https://host.org/a@b", "git@github.com:x/y", "sk-ok", "a:b@c"]
)
def test_what_is_none_stays(text: str) -> None:
    assert hide(text) == text
    assert find({"a": [text, {"b": text}]}) is None


def test_what_the_environment_holds_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("OTHER_TOKEN", "short")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "not a secret")
    assert hide("0123456789abcdef, short, not a secret") == "***, short, not a secret"


@pytest.mark.parametrize("key", ["model.path", "card.limits_of_use", "name"])
def test_a_token_in_an_override_reaches_no_file_and_no_screen(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "domain=medical", f"{key}={SECRETS[0]}", f"out={tmp_path}", "freeze=true"]
    code = main(words)
    said = capsys.readouterr()
    assert SECRETS[0] not in said.out + said.err
    assert code == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file() and SECRETS[0] in path.read_text()] == []


def test_a_manifest_and_a_plan_with_a_token_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = {"id": "a", "role": "cpt", "path": "a.txt", "licence": "mit", "note": f"key {SECRETS[0]}"}
    (tmp_path / "m.yaml").write_text(json.dumps({"title": "M", "sources": [source]}))
    with pytest.raises(DataError, match=r"sources\.0\.note holds what looks like an access token"):
        load_manifest(tmp_path / "m.yaml", None)
    (tmp_path / "plan.json").write_text(json.dumps({"schema": 1, "data_root": SECRETS[4]}))
    assert main(["stage", str(tmp_path / "plan.json"), "cpt"]) == 1
    assert "data_root (" in (said := capsys.readouterr().err)
    assert "s3cret" not in said
