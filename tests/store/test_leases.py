"""Leases: what a run claims is known to others while it lives, and forgotten when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from common.store import leases
from common.store.leases import leased, live, names_in_use


def test_a_lease_names_what_a_run_uses_until_it_ends(tmp_path: Path) -> None:
    with leased(tmp_path) as one, leased(tmp_path) as two:
        one.add("a")
        two.add("b", "c")
        one.add("a")
        assert names_in_use(tmp_path) == {"a", "b", "c"}
        assert [facts["pid"] for facts in live(tmp_path)] == [os.getpid()] * 2
    assert names_in_use(tmp_path) == set()
    assert list((tmp_path / leases.FOLDER).iterdir()) == []


def test_the_lease_of_a_killed_run_is_dead_and_goes(tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from common.store.leases import leased
        with leased(Path({str(tmp_path)!r})) as lease:
            lease.add("a")
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    killed = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / leases.FOLDER).iterdir())) == 2
    assert names_in_use(tmp_path) == set()
    assert names_in_use(tmp_path, clean=True) == set()
    assert list((tmp_path / leases.FOLDER).iterdir()) == []


def test_a_store_that_cannot_be_written_is_read_without_a_lease() -> None:
    with leased(Path("/proc/nowhere")) as lease:
        lease.add("a")
        assert lease.path is None


def test_a_full_disk_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(lease: leases.Lease) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(leases.Lease, "_write", full)
    with pytest.raises(OSError, match="No space left"), leased(tmp_path):
        pass
