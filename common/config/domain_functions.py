"""The public functions of a Python file in a domain's folder, checked to be of one form, with their options.

Usage: `found = load_functions(path, source, shown, SHAPE)`; `options_of_function(found["cites"])` checks options.

A function takes one thing and returns a number. Its keyword-only parameters are its options, checked against their
annotations. Reading the file runs its code: whether that is allowed is decided in
`common.engine.preflight.domain_code`.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel, ConfigDict, PydanticSchemaGenerationError, create_model

from common.errors import ConfigError

Function = Callable[..., float]


@dataclass(frozen=True, eq=False)  # one each, which is itself alone
class Shape:
    """What the functions of a file are, for messages and checks."""

    noun: str  # "reward"
    takes: str  # "answer: Answer", as a definition has it
    taken: Collection[str] = ()  # names that the package's own have
    reserved: tuple[str, ...] = ()  # keys beside a function's options, so that no option can have their names


@functools.cache  # by content, so that an edit is read again
def load_functions(path: Path, source: bytes, shown: Path, shape: Shape) -> Mapping[str, Function]:
    """Run a file and return its public functions by name. Raises ConfigError where one is not of the shape."""
    module = ModuleType(f"{path.stem}_{hashlib.sha256(str(path).encode() + source).hexdigest()[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        # Compiled from the very bytes that are digested; nothing is written beside the file.
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:  # whatever the file's own code raises
        raise ConfigError(f"{shown} could not be loaded: {type(error).__name__}: {error}. Correct the file.") from error
    found: dict[str, Function] = {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }
    for name, function in found.items():
        _check(shown, name, function, shape)
    return found


@functools.cache
def options_of_function(function: Function) -> type[BaseModel]:
    """Return the model of a function's keyword-only parameters, from their annotations and defaults."""
    fields = {
        parameter.name: (parameter.annotation, ... if parameter.default is parameter.empty else parameter.default)
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    made: type[BaseModel] = create_model(function.__name__, __config__=ConfigDict(extra="forbid"), **fields)  # type: ignore[call-overload] # fields are only known here
    return made


def _check(path: Path, name: str, function: Function, shape: Shape) -> None:
    """Raise ConfigError where a function cannot be called as one of the shape, or its name or an option's is taken."""
    if name in shape.taken:
        raise ConfigError(f"{path}: '{name}' is a {shape.noun} of the package. Give the function another name.")
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception as error:  # an annotation may be any expression
        raise ConfigError(f"{path}: an annotation of '{name}' cannot be read: {error}.") from None
    parameters = list(signature.parameters.values())
    is_one = (
        not (inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function))
        and len(parameters) > 0
        and parameters[0].kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        and all(option.kind is option.KEYWORD_ONLY for option in parameters[1:])
        and all(option.annotation is not option.empty for option in parameters[1:])
        and signature.return_annotation in (float, int, bool)
    )
    if not is_one:
        raise ConfigError(
            f"{path}: expected `def {name}({shape.takes}, *, option: type = default) -> float`; got "
            f"`def {name}{inspect.signature(function)}`. If it is not a {shape.noun}, begin its name with an "
            "underscore."
        )
    options = [parameter.name for parameter in parameters[1:]]
    if taken := next((name for name in options if name in shape.reserved), None):
        raise ConfigError(f"{path}: '{name}' has an option '{taken}', a key that every {shape.noun} has. Rename it.")
    if taken := next((name for name in options if name.startswith("_") or hasattr(BaseModel, name)), None):
        raise ConfigError(f"{path}: '{name}' has an option '{taken}', a name that pydantic keeps. Rename it.")
    try:
        options_of_function(function)
    except PydanticSchemaGenerationError as error:
        raise ConfigError(f"{path}: an option of '{name}' has a type that cannot be checked: {error.message}") from None
