"""Commands that read a run take its name, and say which runs there are where the one asked for is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.cli.main import main
from common.store.runs import RunFolder
from tests.conftest import QUICK, linked

WORDS = [f"{key}={value}" for key, value in QUICK.items()]


def frozen(out: Path, *words: str) -> None:
    assert main(["plan", "domain=medical", f"out={out}", "freeze=true", *words]) == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["name=nne"], "There is no run name=nne of medical as asked for. There is tiny/demonstration, tiny/one "),
        (["name=one", "pipeline=sft-only"], "There is no run name=one of medical as asked for."),
        (["name=one", "profile=qwen3-8b"], "There is no run name=one of medical as asked for."),
        (["name=../x"], "name='../x': expected letters, digits"),
        (["pipeline=sft-only"], "There is tiny/demonstration, tiny/one (profile/name)."),
        (["name=one"], "There is tiny/demonstration, tiny/one (profile/name)."),
    ],
)
@pytest.mark.parametrize("command", [["chat", "prompt=x"], ["publish"]])
def test_of_a_run_that_is_missing_the_others_are_named(
    command: list[str], words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen(tmp_path, "name=one")
    frozen(tmp_path)
    capsys.readouterr()
    assert main([*command, "domain=medical", f"out={tmp_path}", *words]) == 1
    assert expected in capsys.readouterr().err


def test_a_name_of_two_profiles_needs_the_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for profile in ("tiny", "other"):
        folder = RunFolder(tmp_path / "runs", "medical", profile, "one")
        folder.path.mkdir(parents=True)
        folder.plan.write_text("{}", encoding="utf-8")
    assert main(["rerun", "domain=medical", f"out={tmp_path}", "name=one", "stage=sft"]) == 1
    assert "name=one: there is other/one, tiny/one. Say which with profile=<profile>." in capsys.readouterr().err


def test_status_has_a_line_for_each_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frozen(tmp_path, "name=one")
    frozen(tmp_path)
    broken = RunFolder(tmp_path / "runs", "medical", "tiny", "broken")
    broken.path.mkdir()
    broken.summary.write_text('{"checkpoints": []}', encoding="utf-8")
    capsys.readouterr()
    assert main(["status", f"out={tmp_path}"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "medical" in line]
    assert [line[2:4] for line in lines] == [["broken", "(?)"], ["demonstration", "not"], ["one", "(demonstration)"]]


@pytest.mark.slow
def test_two_recipes_keep_their_own_folders(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the first has stays as it was, and each is read by its name alone."""
    out = f"out={copy}"
    first = RunFolder(copy / "runs", "medical", "tiny", "demonstration")
    before = {path.name: path.readlink() for path in first.path.iterdir() if path.is_symlink()}
    files = {path: path.read_bytes() for path in (first.plan, first.summary)}
    words = [word for word in WORDS if not word.startswith(("cpt", "dpo"))]
    assert main(["run", "domain=medical", out, "pipeline=sft-only", "name=small", *words]) == 0
    assert (
        "v1 of another run stays the latest. To move it here: just publish domain=medical " in capsys.readouterr().out
    )
    assert {path.name: path.readlink() for path in first.path.iterdir() if path.is_symlink()} == before
    assert {path: path.read_bytes() for path in files} == files
    assert (copy / "models" / "medical" / "latest").readlink() == Path("v1")
    assert main(["gc", out, "dry=true"]) == 0
    assert "would remove 0 folders" in capsys.readouterr().out
    assert main(["chat", "domain=medical", out, "name=small", "prompt=What is the capital of Japan?"]) == 0
    assert main(["publish", "domain=medical", out, "name=small"]) == 0
    assert f"Published: {copy}/models/medical/v2" in capsys.readouterr().out
    assert main(["rerun", "domain=medical", out, "name=small", "stage=sft", "run.verbosity=quiet"]) == 0
    small = linked(copy, "sft", "small")
    assert small is not None
    assert small.manifest["settings"]["tokens"] == int(QUICK["sft.tokens"])


def test_commands_take_several_domains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["domains=medical,legal", f"out={tmp_path}", "cpt-legal.tokens=8192"]
    assert main(["config", *words]) == 0
    assert "cpt-legal.tokens" in (shown := capsys.readouterr().out)
    assert [line.split()[1:] for line in shown.splitlines() if line.split()[:1] == ["cpt-legal.tokens"]] == [
        ["8192", "command", "line"]
    ]
    quick = [word for word in WORDS if not word.startswith(("sft", "dpo"))]
    assert main(["plan", *words, *quick, "name=two", "freeze=true"]) == 0
    assert f"Frozen: {tmp_path}/runs/medical_legal/tiny/two/plan.json" in capsys.readouterr().out
    assert main(["status", f"out={tmp_path}"]) == 0
    assert "two (sequence)" in capsys.readouterr().out
    assert main(["chat", "domains=medical,legal", f"out={tmp_path}", "name=tow", "prompt=x"]) == 1
    assert "There is no run name=tow of medical_legal as asked for. There is tiny/two" in capsys.readouterr().err
    for command, expected in (
        (["data", "domains=medical,legal", "data=hub"], "data shows the rows of one domain"),
        (["plan", "domain=all", "domains=medical,legal"], "domain=all and domains=medical,legal are both set"),
        (["preview", *words, "stage=cpt-legl"], "Did you mean 'cpt-legal'"),
    ):
        assert main(command) == 1
        assert expected in capsys.readouterr().err


def test_a_stage_of_a_run_that_never_was_is_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerun", "domain=medical", "stage=sft", f"out={tmp_path}"]) == 1
    expected = f"error: There is no run of medical in {tmp_path}/runs. `just run` makes all its stages.\n"
    assert capsys.readouterr().err == expected


def test_a_file_that_is_not_there_says_where_it_was_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "domain=medical", "data=my.yaml", f"out={tmp_path}"]) == 1
    assert f"my.yaml: no such file in {tmp_path}." in capsys.readouterr().err
