"""Rewards that a domain brings: the public functions of the `rewards.py` in its folder, beside those of the package.

Usage: `verifiers = verifiers_with(folder / "rewards.py")`; a settings file names the functions under `rewards:`.

    from common.rewards.verifiers import Answer

    def formula_valid(answer: Answer, *, strict: bool = True) -> float:
        ...

A function takes an answer and returns a number, from 0 to 1 where rewards are ranked. Its keyword-only parameters are
its options, checked against their annotations. Reading the file runs its code: whether that is allowed is decided in
`common.engine.preflight.domain_code`.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel, PydanticSchemaGenerationError

from common.config.base import StageSettings
from common.config.domain_code import REWARDS, read_code, runnable
from common.config.resolve import Resolved
from common.config.stages import AnsweringSettings, RewardedSettings
from common.errors import ConfigError
from common.rewards.verifiers import VERIFIERS, Verifier, options_of_function
from common.system.files import read_bytes
from common.system.outside_code import may_run

FILE = REWARDS
RESERVED = ("weight", "model")  # keys of every reward, so that no option can have their names


def own_names(settings: StageSettings) -> set[str]:
    """Return the rewards that a stage's settings name and that only a domain can bring."""
    if not isinstance(settings, AnsweringSettings):
        return set()
    named = {name for name, given in settings.rewards.items() if "model" not in given}
    if isinstance(settings, RewardedSettings) and settings.watch.check is not None:
        named.add(settings.watch.check)
    return named - VERIFIERS.keys()


def verifiers_with(path: Path, shown: Path | None = None) -> Mapping[str, Verifier]:
    """Return the package's verifiers and those of a domain's file, which is run; a missing file adds none.

    `shown` is the path for messages, where `path` is a copy. Raises ConfigError where the file does not load, or a
    public function is no reward.
    """
    if not path.is_file():
        return VERIFIERS
    return {**VERIFIERS, **_load(path, read_bytes(path), shown or path)}


def verifiers_for(resolved: Resolved) -> Mapping[str, Verifier]:
    """Return the rewards that a run may name: those of the package and, where its code may run, of its domain."""
    folder = resolved.domain_folder
    if resolved.shipped or not (folder / FILE).is_file():
        return verifiers_with(folder / FILE)
    allowed = may_run(read_code(folder).code)
    return verifiers_with(runnable(folder, FILE) / FILE, folder / FILE) if allowed else VERIFIERS


@functools.cache  # by content, so that an edit is read again
def _load(path: Path, source: bytes, shown: Path) -> Mapping[str, Verifier]:
    module = ModuleType(f"rewards_{hashlib.sha256(str(path).encode() + source).hexdigest()[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        # Compiled from the very bytes that are digested; nothing is written beside the file.
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:  # whatever the file's own code raises
        raise ConfigError(f"{shown} could not be loaded: {type(error).__name__}: {error}. Correct the file.") from error
    found = {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }
    for name, function in found.items():
        _check(shown, name, function)
    return found


def _check(path: Path, name: str, function: Verifier) -> None:
    """Raise ConfigError where a function cannot be called as a reward, or its name or an option's is taken."""
    if name in VERIFIERS:
        raise ConfigError(f"{path}: '{name}' is a reward of the package. Give the function another name.")
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception as error:  # an annotation may be any expression
        raise ConfigError(f"{path}: an annotation of '{name}' cannot be read: {error}.") from None
    parameters = list(signature.parameters.values())
    is_reward = (
        not (inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function))
        and len(parameters) > 0
        and parameters[0].kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        and all(option.kind is option.KEYWORD_ONLY for option in parameters[1:])
        and all(option.annotation is not option.empty for option in parameters[1:])
        and signature.return_annotation in (float, int, bool)
    )
    if not is_reward:
        raise ConfigError(
            f"{path}: expected `def {name}(answer: Answer, *, option: type = default) -> float`; got "
            f"`def {name}{inspect.signature(function)}`. If it is not a reward, begin its name with an underscore."
        )
    options = [parameter.name for parameter in parameters[1:]]
    if taken := next((name for name in options if name in RESERVED), None):
        raise ConfigError(f"{path}: '{name}' has an option '{taken}', a key that every reward has. Rename it.")
    if taken := next((name for name in options if name.startswith("_") or hasattr(BaseModel, name)), None):
        raise ConfigError(f"{path}: '{name}' has an option '{taken}', a name that pydantic keeps. Rename it.")
    try:
        options_of_function(function)
    except PydanticSchemaGenerationError as error:
        raise ConfigError(f"{path}: an option of '{name}' has a type that cannot be checked: {error.message}") from None
