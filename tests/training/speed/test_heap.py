"""The heap of glibc keeps what a step frees while a model trains on a CPU, and gives it back afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.config.schema import RunSettings
from common.training.speed import heap
from tests.conftest import REPOSITORY

# In a process of its own: what one has freed before decides what its heap does.
MEASURING = """
import json, resource
import torch
from common.config.schema import RunSettings
from common.training.speed import heap

PAGES = (8 << 20) // resource.getpagesize()

def asked_for():
    for _ in range(20):
        torch.ones(PAGES * resource.getpagesize() // 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(PAGES * resource.getpagesize() // 4)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20 / PAGES

def resident():
    return int(open("/proc/self/statm", encoding="ascii").read().split()[1]) / PAGES

heap._set(heap._glibc(), 128 << 10, 128 << 10)  # as a process begins
found = {"before": asked_for()}
for name, run, device in (("gpu", RunSettings(), "cuda"), ("off", RunSettings(keep_heap=False), "cpu")):
    with heap.keep_heap(run, device) as kept:
        found[name] = (kept, asked_for())
with heap.keep_heap(RunSettings(), "cpu") as kept:
    found["on"] = (kept, asked_for())
    during = resident()
found["given back"] = during - resident()
print(json.dumps(found))
"""


def huge_pages() -> bool:
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return path.is_file() and "[always]" in path.read_text(encoding="ascii")


@pytest.mark.skipif(heap._glibc() is None or huge_pages(), reason="no glibc, or huge pages, of which few are asked for")
def test_what_a_step_frees_is_kept_for_the_next_one_and_given_back_at_the_end() -> None:
    said = subprocess.run(
        [sys.executable, "-c", MEASURING], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    found = json.loads(said)  # pages, as shares of those of a block
    assert found["before"] > 0.9
    for name in ("gpu", "off"):
        kept, pages = found[name]
        assert not kept
        assert pages > 0.9, name
    kept, pages = found["on"]
    assert kept
    assert pages < 0.05
    assert found["given back"] > 0.9


def test_an_older_glibc_keeps_blocks_up_to_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    class Older:
        def mallopt(self, parameter: int, value: int) -> int:
            asked.append((parameter, value))
            return int(parameter == heap.M_TRIM_THRESHOLD or value <= heap.USUAL_LARGEST)

        def malloc_trim(self, pad: int) -> int:
            return 1

    monkeypatch.setattr(heap, "_glibc", Older)
    with heap.keep_heap(RunSettings(), "cpu") as kept:
        assert kept
        assert asked[-2:] == [(heap.M_MMAP_THRESHOLD, heap.USUAL_LARGEST), (heap.M_TRIM_THRESHOLD, heap.GIB)]


def test_nothing_changes_with_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    heap._glibc.cache_clear()
    with heap.keep_heap(RunSettings(), "cpu") as kept:
        assert not kept
    heap._glibc.cache_clear()
