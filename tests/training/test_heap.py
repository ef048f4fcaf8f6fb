"""The heap of glibc keeps what a step frees while a model trains on a CPU, and gives it back afterwards."""

from __future__ import annotations

import resource

import pytest
import torch

from common.config import RunSettings
from common.training import heap

BYTES = 8 << 20
PAGES = BYTES // resource.getpagesize()


def pages_of_a_step() -> int:
    """How many pages are asked for while a block is made and freed, on average over twenty times."""
    torch.ones(BYTES // 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(BYTES // 4)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1])


@pytest.mark.skipif(heap._glibc() is None, reason="this C library is not glibc")
def test_what_a_step_frees_is_kept_for_the_next_one_and_given_back_at_the_end() -> None:
    heap._set(heap._glibc(), largest=128 << 10, free=128 << 10)  # as a process begins
    assert pages_of_a_step() > 0.9 * PAGES
    with heap.kept(RunSettings(), "cpu") as kept:
        assert kept
        assert pages_of_a_step() < 0.05 * PAGES
        during = resident()
    assert during - resident() > 0.9 * PAGES


@pytest.mark.parametrize(("device", "keep"), [("cuda", True), ("cpu", False)])
def test_nothing_changes_on_a_gpu_or_where_it_is_not_wanted(device: str, keep: bool) -> None:
    with heap.kept(RunSettings(keep_heap=keep), device) as kept:
        assert not kept


def test_nothing_changes_with_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    heap._glibc.cache_clear()
    with heap.kept(RunSettings(), "cpu") as kept:
        assert not kept
    heap._glibc.cache_clear()
