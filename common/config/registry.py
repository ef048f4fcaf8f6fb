"""What the modules of a package declare, by name: the kinds of stages, and the blocks that clean rows.

Usage: `declared("common.stages", "KIND")["cpt"]`, usually through `common.config.kinds` or `common.config.blocks`.

A package is listed when it is first asked for, so that no lower room names a module of a higher one.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any


def declared(package: str, attribute: str) -> Mapping[str, Any]:
    """Return what the modules of a package hold as `attribute`. A folder added to its `__path__` brings its own."""
    return _declared(package, attribute, tuple(importlib.import_module(package).__path__))


@functools.cache
def _declared(package: str, attribute: str, folders: tuple[str, ...]) -> Mapping[str, Any]:
    found = {}
    for module in pkgutil.iter_modules(folders):
        name = f"{package}.{module.name}"
        if (one := getattr(importlib.import_module(name), attribute, None)) is not None:
            assert one.name == module.name, f"{name} declares the {attribute} {one.name}; name both alike"
            found[one.name] = one
    return found
