"""What a machine has, and that training uses bfloat16 only where the processor computes in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common import machine
from common.config.resolve import PROCESSOR, resolve
from common.config.stages import LearningSettings
from common.machine import computes_bfloat16
from tests.conftest import REPOSITORY


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
        ("flags\t\t: fpu sse2 avx avx2 fma", False),
        ("flags\t\t: avx2 avx512f avx512bw", False),
        ("flags\t\t: avx2 avx512f avx512_bf16", True),
        ("flags\t\t: avx512f amx_bf16 amx_tile", True),
        ("Features\t: fp asimd i8mm bf16", True),
        ("vendor_id : unknown", False),
    ],
)
def test_bfloat16_is_read_from_the_flags(processor: Path, line: str, expected: bool) -> None:
    processor.write_text(f"processor\t: 0\n{line}\n", encoding="utf-8")
    assert computes_bfloat16() is expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ATEN_CPU_CAPABILITY", "avx2", False),
        ("ATEN_CPU_CAPABILITY", "default", False),
        ("ATEN_CPU_CAPABILITY", "avx512", True),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", False),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE", False),
        ("ONEDNN_MAX_CPU_ISA", "avx512_core_bf16", True),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX", True),
        ("ONEDNN_MAX_CPU_ISA", "ALL", True),
    ],
)
def test_what_torch_may_not_use_does_not_count(
    processor: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: bool
) -> None:
    processor.write_text("flags : avx512f avx512_bf16 amx_bf16\n", encoding="utf-8")
    monkeypatch.setenv(name, value)
    assert computes_bfloat16() is expected


@pytest.mark.usefixtures("processor")
def test_a_system_without_that_file_computes_in_float32() -> None:
    assert not computes_bfloat16()


def bfloat16(**words: str) -> dict[str, Any]:
    """Return what each stage that trains says of bfloat16, and which layer said it."""
    given = {key.replace("__", "."): value for key, value in words.items()}
    found = resolve({"domain": "medical", **given}, REPOSITORY)
    trained = {
        name: settings for name, settings in found.config.stages.items() if isinstance(settings, LearningSettings)
    }
    return {name: (kept.train.get("bf16"), found.origins.get(f"{name}.train.bf16")) for name, kept in trained.items()}


def test_the_tiny_profile_trains_in_float32_where_bfloat16_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.config.resolve.computes_bfloat16", lambda: False)
    monkeypatch.setattr("common.config.resolve.cards", lambda: ())
    found = bfloat16(cpt__train__bf16="true")
    assert found.pop("cpt") == (True, "command line")
    assert set(found.values()) == {(False, PROCESSOR)}
    assert set(bfloat16(run__hardware="h100-sxm").values()) == {(True, "profile tiny")}
    assert bfloat16(profile="qwen3-0.6b")["cpt"][0] is True


def test_it_trains_in_bfloat16_where_the_processor_or_a_gpu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.config.resolve.computes_bfloat16", lambda: True)
    assert set(bfloat16().values()) == {(True, "profile tiny")}
    monkeypatch.setattr("common.config.resolve.computes_bfloat16", lambda: False)
    monkeypatch.setattr("common.config.resolve.cards", lambda: (machine.Card("NVIDIA L4", "GPU-aa", 2.0**34),))
    monkeypatch.setattr("common.config.resolve.visible", lambda found, named: tuple(found))
    assert set(bfloat16().values()) == {(True, "profile tiny")}
    assert set(bfloat16(run__device="cpu").values()) == {(False, PROCESSOR)}
