"""The command line: words, commands, exit codes, and errors without tracebacks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from common.cli import output
from common.cli.catalogue import COMMANDS
from common.cli.main import main
from common.config.overrides import parse
from common.config.resolve import resolve
from common.console import Console
from common.engine.plan import make_plan
from common.engine.run import Outcome
from common.errors import ConfigError
from tests.conftest import QUICK, REPOSITORY

WORDS = [f"{key}={value}" for key, value in QUICK.items()]


def test_a_value_may_hold_spaces_and_equal_signs() -> None:
    command, words = parse(["chat", "domain=medical", "prompt=is 2 = 3, or not?"], COMMANDS)
    assert command == "chat"
    assert words == {"domain": "medical", "prompt": "is 2 = 3, or not?"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["rnu"], "There is no command 'rnu'. Did you mean 'run'?"),
        (["run", "medical"], "Expected key=value, such as domain=medical; got 'medical'."),
        (["run", "a." * 30_000 + "b=1"], r"more than 100 dots; no setting is that deep"),
        (["run", "domain=a", "domain=b"], "'domain' is given twice: 'a' and 'b'"),
    ],
)
def test_wrong_words_are_named(arguments: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(arguments, COMMANDS)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plan", "domain=medical", "data=" + "x" * 5000], "error: File name too long: 'xxx"),
        (["plan", "domain=medical", "out=" + "x" * 5000], "error: File name too long: '/"),
        (["plan", "domain=medical", "out=a\0b"], r"error: 'out=a\x00b' holds a NUL character. Leave it out."),
        (["plan", "domain=medical", "data=\udcff"], r"error: 'data=\udcff' is not UTF-8. Give names and values in"),
        (["plan", "domain=medical", "cpt.tokens=" + "[" * 100_000], "cpt.tokens"),
        (["plan", "domain=medical", "cpt.tokens=" + "1" * 5000], "cpt.tokens"),
        (["x\nerror: y\x1b[2J"], r"error: There is no command 'x\nerror: y\x1b[2J'"),
        (["plan", "domain=medicl"], "error: There is no domain 'medicl'. Did you mean 'medical'?"),
        (["rerun", "domain=medical"], "error: rerun needs stage=<stage>."),
        (["rerun", "domain=medical", "stage=sfft"], "has no stage 'sfft'. Did you mean 'sft'?"),
        (["plan", "domain=medical", "merge.models.dpoo.weight=1"], "Did you mean 'dpo'?"),
        (["plan", "domain=medical", "publish.to=hubb"], "publish.to is 'hubb'"),
        (["plan", "domain=medical", "card.limits_of_use="], "card.limits_of_use is empty"),
        (["status", "domain=medical"], "status takes no 'domain'"),
        (["config", "domain=all"], "domain=all works with run, rerun and plan only"),
        (["new-domain"], "new-domain needs name=<name>"),
        (["new-domain", "name=medical"], "domains/medical is there already"),
        (["new-domain", "name=Big"], "expected small letters"),
        (["gc", "dry=maybe"], "dry=maybe: expected true or false"),
        (["plan", "domain=medical", "model.path=/nonexistent/model"], "no such folder"),
        (["plan", "domian=medical"], "domian: no such key. Did you mean 'domain'?"),
        (
            ["plan", "domain=medical", "pipline=full"],
            "pipline (command line): no section or stage of that name. Did you",
        ),
        (
            ["plan", "domain=medical", f"out={REPOSITORY}/domains"],
            "is among the files of this program. Give a folder of its own",
        ),
        (
            ["plan", "domain=medical", f"out={REPOSITORY}/README.md/store"],
            "README.md is a file. Give a folder for results.",
        ),
        (["plan", "domain=medical", "model.path=owner/name"], "needs model.revision=<commit>"),
        (["plan", "domain=medical", "model.path=owner/name", "model.revision=main"], "model.revision=main may move"),
        (["plan", "domain=medical", "data=hub"], "or start from a checkpoint: model.path=<folder, or owner/name"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_one(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert expected in shown
    assert "Traceback" not in shown


def test_nobody_guesses_how_long_an_unknown_model_takes(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=hub", "model.path=owner/name", f"model.revision={'a' * 40}", "out=/nonexistent/x"]
    assert main(["plan", "domain=finance", *words]) == 0
    shown = capsys.readouterr().out
    assert "time unknown: this model has not run here" in shown
    assert re.search(r"cpt +waits +500,000,000 +\? ", shown)


@pytest.mark.slow
def test_show_commands_answer(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = f"out={finished}"
    assert main(["plan", "domain=medical", out, *WORDS]) == 0
    assert "Nothing to do." in capsys.readouterr().out
    changed = [word for word in WORDS if not word.startswith("cpt.tokens")] + ["cpt.tokens=32768"]
    assert main(["plan", "domain=medical", out, *changed]) == 0
    shown = capsys.readouterr().out
    assert "stale" in shown
    assert "cpt.tokens: 16384 -> 32768 (command line)" in shown
    assert main(["why", "domain=medical", "stage=dpo", out, *changed]) == 0
    assert "the first stage to do is cpt (stale)" in capsys.readouterr().out
    assert main(["status", out]) == 0
    assert "demonstration" in capsys.readouterr().out
    assert main(["config", "domain=medical", "cpt.tokens=32768"]) == 0
    shown = capsys.readouterr().out
    assert any(line.split() == ["cpt.tokens", "32768", "command", "line"] for line in shown.splitlines())
    assert any(line.split() == ["base.tokens", "500000", "profile", "tiny"] for line in shown.splitlines())


def test_status_tells_of_a_plan_that_came_after_the_last_card(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "domain=medical", f"out={copy}", "freeze=true", "seed=1"]) == 0
    capsys.readouterr()
    assert main(["status", f"out={copy}"]) == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if "demonstration" in line)
    assert "->" in first
    assert "not finished" in second
    assert main(["run", "domain=medical", f"out={copy}", *WORDS]) == 0
    capsys.readouterr()
    assert main(["status", f"out={copy}"]) == 0
    assert "not finished" not in capsys.readouterr().out
    view = copy / "runs" / "medical" / "tiny" / "demonstration"
    hour = time.time() + 3600  # as a clock wrote it that was set back since
    os.utime(view / "plan.json", (hour, hour))
    assert main(["run", "domain=medical", f"out={copy}", *WORDS]) == 0
    capsys.readouterr()
    assert main(["status", f"out={copy}"]) == 0
    assert "not finished" not in capsys.readouterr().out
    (view / "plan.json").write_text("{}", encoding="utf-8")
    (view / "summary.json").unlink()
    assert main(["status", f"out={copy}"]) == 0
    assert "plan.json cannot be read" in capsys.readouterr().out


def test_what_talks_to_a_result_are_the_words_that_made_it(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = {"domain": "medical", "out": str(finished), **QUICK}
    resolved = resolve(words, REPOSITORY)
    artifacts = {step.node.name: step.artifact for step in make_plan(resolved).steps if step.artifact is not None}
    output.result(resolved, Outcome(artifacts, made=["sft"]), Console(), {**words, "run.threads": "2"})
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"Talk to it: just chat domain=medical out={finished} ")
    assert " run.threads=2" in line


def test_a_plan_can_be_frozen_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "domain=medical", f"out={tmp_path}", "freeze=true"]) == 0
    assert (tmp_path / "runs" / "medical" / "tiny" / "demonstration" / "plan.json").is_file()
    assert main(["plan", "domain=medical", "freeze=maybe"]) == 1
    assert "freeze=maybe: expected true or false" in capsys.readouterr().err


def test_run_again_says_that_there_is_nothing_to_do(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [w for w in WORDS if "verbosity" not in w]
    assert main(["run", "domain=medical", f"out={finished}", *words]) == 0
    shown = capsys.readouterr().out
    assert "Nothing to do: all 14 stages are up to date." in shown
    assert "models/medical/v1" in shown
    assert shown.count("[0.") >= 12  # both intervals of six checkpoints


def test_chat_answers_and_stops(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["domain=medical", f"out={finished}", *WORDS, "prompt=What is the capital of Japan?"]
    assert main(["chat", *words]) == 0
    assert main(["chat", *words, "stage=dppo"]) == 1
    assert "Did you mean 'dpo'?" in capsys.readouterr().err


def test_chat_before_a_run_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "domain=medical", f"out={tmp_path}", "prompt=x"]) == 1
    assert "There is no finished merge of medical with these settings (waits: after" in capsys.readouterr().err


def test_publish_before_a_run_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "domain=medical", f"out={tmp_path}"]) == 1
    assert "Nothing to publish yet: base is not made" in capsys.readouterr().err


def test_publish_of_a_finished_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "domain=medical", "to=local", f"out={finished}", *WORDS]) == 0
    assert f"Published: {finished}/models/medical/v1" in capsys.readouterr().out


def test_a_read_only_store_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As root no mode bit stops writing, so the store is placed where no folder can be made at all."""
    assert main(["run", "domain=medical", "out=/proc/nowhere", *WORDS]) == 1
    shown = capsys.readouterr().err
    assert "error:" in shown
    assert "Give another folder with out=<folder>" in shown


def test_just_forwards_words_unchanged() -> None:
    """The Justfile hands each word on as one argument, spaces and equal signs included."""
    text = (REPOSITORY / "Justfile").read_text(encoding="utf-8")
    assert "set positional-arguments" in text
    for name in set(COMMANDS):
        assert f'-m common {name} "$@"' in text, name


def test_the_module_runs_from_the_repository() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "common", "plan", "domain=medicl"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: There is no domain")


@pytest.mark.parametrize(
    ("streams", "code", "expected"),
    [
        ("| true", 1, ""),
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("> /dev/full", 1, "error: What this command prints cannot be written: No space left on device.\n"),
    ],
)
def test_whatever_the_streams_are_there_is_no_traceback(streams: str, code: int, expected: str) -> None:
    script = f"set -o pipefail; {sys.executable} -m common --help {streams}"
    found = subprocess.run(["bash", "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (code, expected)


def test_a_full_disk_outside_the_store_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/tmp/x/y")

    monkeypatch.setitem(COMMANDS, "status", replace(COMMANDS["status"], run=fail))
    assert main(["status"]) == 1
    assert capsys.readouterr().err.startswith("error: The disk of /tmp/x is full (")


def test_no_folder_for_temporary_files_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def use(*_: object, **__: object) -> None:
        tempfile.gettempdir()

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile._os, "open", full)  # type: ignore[attr-defined]  # of Python's own module
    monkeypatch.setitem(COMMANDS, "status", replace(COMMANDS["status"], run=use))
    assert main(["status"]) == 1
    monkeypatch.undo()
    said = capsys.readouterr().err
    assert said.startswith("error: No usable temporary directory found in ['")
    assert said.endswith("; each is full or read-only. Set TMPDIR to one with room.\n")


def test_a_limit_on_the_size_of_files_is_named(tmp_path: Path) -> None:
    script = (
        "import resource; from pathlib import Path; from common.store.artifacts import disk_full; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); print(disk_full(Path.cwd()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "MB free). Or a file is too large: `ulimit -f` allows 5,000 bytes. Nothing" in found.stdout
