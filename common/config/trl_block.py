"""What the layers of a run say of one stage in TRL's words, where the stage has words of its own for the same.

Usage: `block = TrlBlock("sft", SftSettings, owned)`; `values = block.take(values, "command line", (5, 0))` for each
layer, from the weakest to the strongest; then the rules of `common.config.trl_mappings` read `block.value(name)` and
call `block.set(...)`, `block.tell(...)` or raise `block.refused(...)`.

It knows no option by name. A stronger layer wins over a weaker one; a value that an equal or stronger layer gives in
the stage's own words, and that means something else, is a contradiction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from common.config.base import StageSettings
from common.config.defaults import default_of
from common.config.overrides import flatten
from common.config.trl_options import as_meant, check_pasted
from common.errors import ConfigError

Rank = tuple[int, int]  # of a value: its layer, and the place in it, a more particular section behind a general one
FROM = ", from "  # in the origin of a setting: the layer, and the option of TRL's that says it
AND = " x "  # between options that say one thing together
TOLD = "; here "  # in the origin of an option of TRL's: the layer, and what the option is here


@dataclass(frozen=True)
class Given:
    """A value, and where it was given."""

    value: Any
    label: str
    rank: Rank
    decided: bool = False  # by the program, for the data of a run: it holds, and contradicts nobody


@dataclass
class TrlBlock:
    """The options of one stage that it has words of its own for, and what has been made of them."""

    stage: str
    settings: type[StageSettings]
    owned: Collection[str]  # options that are taken out of `train`
    words: dict[str, Given] = field(default_factory=dict)  # option -> as the strongest layer gives it
    own: dict[str, Given] = field(default_factory=dict)  # the stage's own keys, dotted, in the same way
    made: dict[str, Given] = field(default_factory=dict)  # what has been made of the options, by the stage's own keys
    told: dict[str, str] = field(default_factory=dict)  # options, joined -> what they are here
    run_wide: dict[str, Given] = field(default_factory=dict)  # what is no setting of one stage, such as the seed
    merged: Mapping[str, Any] = field(default_factory=dict)  # what all layers say in the stage's own words
    kept: list[str] = field(default_factory=list)  # options that stay with TRL after all
    processes: int = 1  # that share a step

    def take(self, values: Mapping[str, Any], label: str, rank: Rank, *, decided: bool = False) -> Mapping[str, Any]:
        """Return what one layer says, its numbers as numbers, without the options that the stage has words for."""
        train = values.get("train")
        others = {key: value for key, value in values.items() if key != "train"}
        for key, value in flatten(others).items():
            if value is not None:
                self.own[key] = Given(value, label, rank, decided)
        if not isinstance(train, Mapping):
            return values
        meant = {str(name): as_meant(self.settings.trainer, str(name), value) for name, value in train.items()}
        for name in self.owned:
            if name in meant:
                check_pasted(f"{self.stage}.train.{name}", label, name, meant[name], self.settings.trainer)
                self.words[name] = Given(meant[name], label, rank)
        left = {name: value for name, value in meant.items() if name not in self.owned}
        return {**others, "train": left} if left or not train else others

    def value(self, name: str, default: Any = None) -> Any:
        """Return the value of an option; `default` where it is not given, or none."""
        given = self.words.get(name)
        return default if given is None or given.value is None else given.value

    def now(self, key: str) -> Any:
        """Return the value of one of the stage's own keys as it stands by now."""
        if key in self.made:
            return self.made[key].value
        found: Any = self.merged
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        model: Any = self.settings
        if found is None:
            *blocks, last = key.split(".")
            for part in blocks:
                model = type(default_of(model.model_fields[part]))
            found = default_of(model.model_fields[last]) if last in model.model_fields else None
        return found

    def strongest(self, *names: str) -> Given:
        """Return where the strongest of some options was given; its value says nothing of the others."""
        return max((self.words[name] for name in names if name in self.words), key=lambda given: given.rank)

    def said(self, *names: str) -> str:
        """Return options with their values, as messages show them."""
        return f"{self.stage}.train." + AND.join(
            f"{name}={plainly(self.words[name].value)}" for name in names if name in self.words
        )

    def set(self, key: str, value: Any, *names: str, because: str = "") -> None:
        """Give the stage's own key a value that some options mean. Raises ConfigError where another one is given."""
        given = self.strongest(*names)
        own = self.own.get(key)
        if own is not None and own.rank >= given.rank and own.value != value:
            if own.decided:
                self.tell(f"{key}={plainly(own.value)} holds instead ({own.label})", *names)
                return
            raise self.contradiction(f"{self.stage}.{key}={plainly(own.value)}", own, *names)
        self.made[key] = Given(value, f"{given.label}{FROM}train.{self._joined(names)}", given.rank)
        self.tell(f"{key}={plainly(value)}{because}", *names)

    def set_run_wide(self, key: str, value: Any, *names: str) -> None:
        """Give a setting of the whole run a value that some options mean."""
        given = self.strongest(*names)
        self.run_wide[key] = Given(value, given.label, given.rank)
        self.tell(f"{key}={plainly(value)}, for the whole run", *names)

    def tell(self, text: str, *names: str) -> None:
        """Say what some options are here."""
        key = self._joined(names)
        self.told[key] = f"{self.told[key]}, {text}" if key in self.told else text

    def _joined(self, names: Iterable[str]) -> str:
        """Return the options of some that are given, as notes name them."""
        return AND.join(name for name in names if name in self.words)

    def keep(self, name: str) -> None:
        """Leave an option with TRL, as its own."""
        self.kept.append(name)
        self.told.pop(name, None)

    def told_origins(self) -> dict[str, str]:
        """Return what each option is here, as the origin of its own key."""
        return {
            f"{self.stage}.train.{names}": f"{self.strongest(*names.split(AND)).label}{TOLD}{text}"
            for names, text in self.told.items()
        }

    def contradiction(self, other: str, own: Given, *names: str) -> ConfigError:
        """Return the error of options that mean something else than what an equal or stronger layer says."""
        given = self.strongest(*names)
        return ConfigError(
            f"{self.said(*names)} ({given.label}) and {other} ({own.label}) contradict each other. Leave out one."
        )

    def refused(self, name: str, reason: str) -> ConfigError:
        """Return the error of an option that cannot be what it says here."""
        return ConfigError(f"{self.stage}.train.{name} ({self.words[name].label}) {reason.format(stage=self.stage)}")


def nested(key: str, value: Any) -> dict[str, Any]:
    """Return a dotted key with its value as nested keys."""
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict), "a key has a part at least"
    return value


def processes_of(run: Mapping[str, Any]) -> int:
    """Return how many processes share a step, as the section `run` is written; what is no number is refused there."""
    given = run.get("processes", 1)
    return given if isinstance(given, int) and given > 0 else 1


def plainly(value: Any) -> str:
    """Return a value as YAML has it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def told_lines(origins: Mapping[str, str]) -> list[str]:
    """Return what the options that the layers give in TRL's words are here, a line for the stages that are alike."""
    found: dict[str, dict[str, list[str]]] = {}  # stage -> what options are here -> the options
    for key, origin in origins.items():
        stage, train, names = key.partition(".train.")
        if train and (text := origin.partition(TOLD)[2]):
            found.setdefault(stage, {}).setdefault(text, []).append(names)
    stages: dict[str, list[str]] = {}
    for stage, told in found.items():
        shown = "; ".join(f"{', '.join(names)} -> {text}" for text, names in told.items())
        stages.setdefault(shown, []).append(stage)
    return [f"{', '.join(f'{name}.train' for name in names)}: {shown}" for shown, names in stages.items()]
