"""What code imports in a process of its own.

Usage: `assert imported("import common.config.kinds", "torch") == []`.
"""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import REPOSITORY


def imported(code: str, *names: str) -> list[str]:
    """Return those of some modules that are there once code has run."""
    code = f"import sys\n{code}\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()
