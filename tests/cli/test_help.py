"""Help: a menu, and for each command what it does, everything that it takes, and examples that parse."""

from __future__ import annotations

import inspect
import shlex

import pytest

from common.cli.catalogue import COMMANDS
from common.cli.help import help_for
from common.cli.main import main
from common.config.overrides import parse
from common.config.resolve import resolve
from common.errors import ConfigError
from tests.conftest import REPOSITORY


def shown(*arguments: str) -> str:
    text = help_for(arguments, "domain-recipes")
    assert text is not None
    return text


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(name: str) -> None:
    command, text = COMMANDS[name], shown(name, "--help")
    assert text == shown(name, "-h") == shown("help", name) == shown(name, "domain=medical", "--help")
    assert text.startswith(f"domain-recipes {name}")
    assert command.does.count(". ") + command.does.endswith(".") == 2  # sentences
    for key in (*command.options, *command.settings):
        assert f"\n  {key}=" in text, key
    for example in command.examples:
        assert f"\n  domain-recipes {name} {example}".rstrip() in text
    if name != "status":
        assert len(set(command.examples)) == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_declared_is_what_the_function_takes(name: str) -> None:
    """So that no option is missing in the help: one that the table lacks reaches no function."""
    parameters = inspect.signature(COMMANDS[name].run).parameters.values()
    own = {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert own == {key: option.needed for key, option in COMMANDS[name].options.items()}


@pytest.mark.parametrize(
    ("name", "example"), [(name, example) for name, command in COMMANDS.items() for example in command.examples]
)
def test_examples_parse_and_their_settings_exist(name: str, example: str) -> None:
    _, overrides = parse([name, *shlex.split(example)], COMMANDS)
    own, settings = COMMANDS[name].split(name, overrides)
    assert own.keys() <= COMMANDS[name].options.keys()
    if settings.get("domain") not in (None, "all") and "data" not in settings:
        resolve(settings, REPOSITORY)


def test_the_menu_names_every_command() -> None:
    text = shown()
    assert text == shown("help") == shown("--help") == shown("-h")
    for name, command in COMMANDS.items():
        assert f"\n  {name} " in text
        assert command.summary.split()[0] in text


def test_no_help_where_none_is_asked_for_and_none_for_what_does_not_exist() -> None:
    assert help_for(["chat", "domain=medical", "prompt=--help me"], "just") is None
    with pytest.raises(ConfigError, match=r"There is no command 'rnu'\. Did you mean 'run'\?"):
        help_for(["rnu", "--help"], "just")


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_it_fits_the_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for name in COMMANDS:
        for line in shown(name, "--help").splitlines():
            assert len(line) <= int(columns) or line.startswith("  domain-recipes"), line


def test_main_prints_help_and_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    assert capsys.readouterr().out.startswith("just run [key=value …]\n")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "domain-recipes 0.1.0\n"


def test_a_setting_is_described_with_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "describe=cpt.schedule.warmup"]) == 0
    shown = capsys.readouterr().out
    assert "share of all steps spent warming up" in shown
    assert "Add domain=<name> to see its value" in shown
    assert main(["config", "describe=cpt.schedule", "domain=medical", "cpt.schedule.floor=0.3"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["cpt.schedule.floor", "0.3", "command", "line"] in lines
    assert main(["config", "describe=cpt.schedul"]) == 1
