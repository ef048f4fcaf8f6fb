"""What a processor is, as its flags and the limits on torch say, and what a GPU's line says."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import machine
from common.machine import Card, card_of, cpu_kind


@pytest.fixture
def processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file in the place of /proc/cpuinfo, and no word in the environment about instructions."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "CPUINFO", path)
    for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    machine.cpu_flags.cache_clear()
    yield path
    machine.cpu_flags.cache_clear()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu sse2 avx avx2 fma", "avx2"),
        ("flags\t\t: avx2 avx512f avx512bw", "avx512"),
        ("flags\t\t: avx2 avx512f avx512_bf16", "avx512_bf16"),
        ("flags\t\t: avx512f avx512_bf16 amx_bf16 amx_tile", "amx"),
        ("Features\t: fp asimd i8mm bf16", "arm_bf16"),
        ("Features\t: fp asimd", "avx2"),
        ("vendor_id : unknown", "avx2"),
    ],
)
def test_a_kind_is_read_from_the_flags(processor: Path, line: str, expected: str) -> None:
    processor.write_text(f"processor\t: 0\n{line}\n", encoding="utf-8")
    assert cpu_kind() == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ATEN_CPU_CAPABILITY", "avx2", "avx2"),
        ("ATEN_CPU_CAPABILITY", "default", "avx2"),
        ("ATEN_CPU_CAPABILITY", "avx512", "amx"),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", "avx2"),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE", "avx512"),
        ("ONEDNN_MAX_CPU_ISA", "avx512_core_bf16", "avx512_bf16"),
        ("ONEDNN_MAX_CPU_ISA", "AVX10_1_512", "avx512_bf16"),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX", "amx"),
        ("ONEDNN_MAX_CPU_ISA", "ALL", "amx"),
    ],
)
def test_what_torch_may_not_use_does_not_count(
    processor: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    processor.write_text("flags : avx2 avx512f avx512_bf16 amx_bf16\n", encoding="utf-8")
    monkeypatch.setenv(name, value)
    assert cpu_kind() == expected


@pytest.mark.usefixtures("processor")
def test_a_system_without_that_file_is_the_plainest_kind() -> None:
    assert cpu_kind() == "avx2"


def test_the_driver_says_memory_and_compute_capability_of_a_gpu() -> None:
    assert card_of("GPU-aa, 15360, 7.5, Tesla T4") == Card("Tesla T4", "GPU-aa", 15360 * 2**20, 7.5)
    assert card_of("GPU-aa, [N/A], [N/A], NVIDIA GB10") == Card("NVIDIA GB10", "GPU-aa", None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", False),
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", True),
        ("cuda = None\nhip = '6.4.1'\n", True),
        ("__version__ = '2.13.0'\n", True),  # says nothing, so it may
    ],
)
def test_what_torch_was_built_for_is_read_without_importing_it(
    text: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "version.py").write_text(text, encoding="utf-8")
    spec = importlib.machinery.ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    machine.torch_has_cuda.cache_clear()
    try:
        assert machine.torch_has_cuda() is expected
    finally:
        machine.torch_has_cuda.cache_clear()
