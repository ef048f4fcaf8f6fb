"""Objects of libraries are kept out of the collector's sight; nothing else is."""

from __future__ import annotations

import gc
import sys
from types import ModuleType

import pytest

from common.system.importing import MANY, importing


@pytest.mark.parametrize(("modules", "is_on"), [(0, True), (MANY - 1, True), (MANY, True), (MANY, False)])
def test_only_where_libraries_were_imported_what_is_there_is_kept(
    modules: int, is_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = gc.get_freeze_count()
    (gc.enable if is_on else gc.disable)()
    try:
        with importing():
            assert not gc.isenabled()
            for number in range(modules):
                monkeypatch.setitem(sys.modules, f"made_up_{number}", ModuleType("made_up"))
        assert (gc.get_freeze_count() > before) is (modules >= MANY)
        assert gc.isenabled() is is_on
    finally:
        gc.enable()


def test_it_is_on_again_behind_a_library_that_cannot_be_imported() -> None:
    with pytest.raises(ImportError), importing():
        raise ImportError("no such library")
    assert gc.isenabled()
