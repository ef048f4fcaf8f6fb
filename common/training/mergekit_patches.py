"""Where the pinned mergekit does something else than a merge within a longer process needs.

Usage: `with quiet_mergekit(), fresh_loaders(), listed_as_stored(names): ...`.

As in `common.training.patches`, a test fails when the library no longer needs one of them: remove it then.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Set
from typing import Any


@contextlib.contextmanager
def fresh_loaders() -> Iterator[None]:
    """Let mergekit open every file again, and close them afterwards.

    mergekit 0.1.5: it keeps open files by path in a class attribute, so a stage that ran again would be read as before.
    """
    from mergekit.io.tasks import LoaderCache

    LoaderCache.loaders.clear()
    try:
        yield
    finally:
        LoaderCache.loaders.clear()


@contextlib.contextmanager
def quiet_mergekit() -> Iterator[None]:
    """Hold back mergekit's log lines below a warning, and how many weights it found in files without a list.

    mergekit 0.1.5: it logs through the root logger, where no level of its own can be set, whatever `quiet` says.
    """

    def is_for_the_user(record: logging.LogRecord) -> bool:
        return not (record.module == "auto" and "mergekit" in record.pathname)

    root, before = logging.getLogger(), logging.root.manager.disable
    placeholder = None if root.handlers else logging.NullHandler()  # else logging.info() would add one that prints
    if placeholder:
        root.addHandler(placeholder)
    logging.disable(max(before, logging.INFO))
    root.addFilter(is_for_the_user)
    try:
        yield
    finally:
        root.removeFilter(is_for_the_user)
        logging.disable(before)
        if placeholder:
            root.removeHandler(placeholder)


@contextlib.contextmanager
def listed_as_stored(stored: Set[str]) -> Iterator[None]:
    """Let mergekit go by the tensors that checkpoints hold, where its list of them says otherwise.

    mergekit 0.1.5: its lists of GPT-NeoX, Cohere and Falcon do not fit all such checkpoints: they name masks that
    transformers makes itself today, and norms that only some sizes have. It fails on a tensor that is not there, which
    may be left out here, and drops one that it does not know. Without a list it goes by the names that transformers
    gives weights in memory, and drops experts, which files name one by one; here it goes by the files.
    """
    from mergekit import architecture
    from mergekit.architecture import auto
    from mergekit.architecture.json_definitions import JsonModuleArchitecture

    listed, substituted = architecture.arch_info_for_config, JsonModuleArchitecture._substitute
    in_memory = auto.get_transformers_info

    def fitting(config: Any) -> Any:
        found = listed(config)
        known = {name for weight in found.all_weights(config) for name in _names(weight)} if found else set[str]()
        return found if stored <= known else None

    def substitute(self: Any, *args: Any, **options: Any) -> Any:
        weight = substituted(self, *args, **options)
        return weight if stored & _names(weight) else weight.model_copy(update={"optional": True})

    def in_files(*args: Any) -> Any:
        return (*in_memory(*args)[:3], None)

    architecture.arch_info_for_config, JsonModuleArchitecture._substitute = fitting, substitute
    auto.get_transformers_info = in_files
    auto.infer_architecture_info.cache_clear()
    try:
        yield
    finally:
        architecture.arch_info_for_config, JsonModuleArchitecture._substitute = listed, substituted
        auto.get_transformers_info = in_memory


def _names(weight: Any) -> set[str]:
    return {weight.name, *(weight.aliases or ()), *(weight.tied_names or ())}
