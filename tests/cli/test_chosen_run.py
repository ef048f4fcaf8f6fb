"""Which run a command means: for a name without settings, the one that was last planned under it, with its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.cli.main import main

GIVEN = ["pipeline=cpt-only", "cpt.tokens=8192", "cpt.train.learning_rate=1e-05", "evaluate.tasks=[]", "seed=3"]


@pytest.fixture
def named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The words of a named run that was planned with settings."""
    words = ["domain=medical", "name=slow", f"out={tmp_path}"]
    assert main(["plan", *words, *GIVEN, "run.verbosity=verbose", "freeze=true"]) == 0
    capsys.readouterr()
    return words


def values(shown: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in shown.splitlines() if len(line.split()) > 1}


def test_a_name_alone_has_the_settings_of_its_command_line(
    named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", *named]) == 0
    out = capsys.readouterr().out
    found = values(out)
    assert found["cpt.tokens"] == ["8192", "command", "line"]
    assert found["cpt.train.learning_rate"] == ["1e-05", "command", "line"]
    assert found["seed"] == ["3", "command", "line"]
    assert found["run.verbosity"][0] == "normal"  # where it runs is no setting of a recipe
    assert "As last planned under name=slow: profile=tiny pipeline=cpt-only " in out


@pytest.mark.parametrize("command", [["why", "stage=cpt"], ["preview", "stage=cpt"], ["plan"]])
def test_other_commands_mean_the_same_run(
    command: list[str], named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *named]) == 0
    assert "cpt.tokens=8192" in capsys.readouterr().out


@pytest.mark.parametrize("more", [["cpt.tokens=4096"], ["pipeline=sft-only"], ["profile=smollm2-135m"]])
def test_settings_begin_a_new_recipe(more: list[str], named: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", *named, *more]) == 0
    assert "As last planned" not in (out := capsys.readouterr().out)
    assert values(out)["seed"][0] != "3"


def test_how_it_is_published_is_no_new_recipe(named: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", *named, "publish.latest=true"]) == 0
    found = values(capsys.readouterr().out)
    assert (found["publish.latest"][0], found["seed"][0]) == ("true", "3")
    assert main(["publish", *named, "publish.latest=true"]) == 1
    assert "Nothing to publish yet: base is not made" in capsys.readouterr().err


def test_the_folder_of_its_data_is_that_of_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("One text.\n", encoding="utf-8")
    source = "{id: a, role: cpt, path: a.txt, licence: mit}"
    (tmp_path / "m.yaml").write_text(f"title: M\nsources: [{source}]\n", encoding="utf-8")
    words = ["domain=medical", "name=own", f"out={tmp_path / 'out'}"]
    given = [f"data={tmp_path / 'm.yaml'}", f"data_root={tmp_path / 'texts'}", "pipeline=cpt-only", "evaluate.tasks=[]"]
    assert main(["plan", *words, *given, "freeze=true"]) == 0
    capsys.readouterr()
    assert main(["plan", *words]) == 0
    assert f"data_root={tmp_path / 'texts'}" in capsys.readouterr().out


def test_of_several_domains_they_are_those_of_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["domains=medical,legal", "name=two", f"out={tmp_path}"]
    assert main(["plan", *words, "seed=5", "cpt-legal.tokens=8192", "freeze=true"]) == 0
    capsys.readouterr()
    assert main(["config", *words]) == 0
    found = values(capsys.readouterr().out)
    assert (found["seed"][0], found["cpt-legal.tokens"][0]) == ("5", "8192")
