"""Write the golden files again: `python -m tests.golden`, in a commit of its own that says why they changed.

Losses, and the weights of other machines, are kept where this machine's losses agree with those checked in.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.golden import curves, defaults, fingerprints


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Compute everything and say what changed. A changed default needs a new schema of recipes first."""
    if defaults.FILE.is_file() and (names := defaults.changed()):
        raise SystemExit(f"The default of {names[0]} changed, so results do: add 1 to RECIPE_SCHEMA first.")
    _write(defaults.FILE, defaults.table())
    before = fingerprints.checked_in() if fingerprints.FILE.is_file() else {}
    now = fingerprints.all_fingerprints()
    _write(fingerprints.FILE, now)
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    print(f"{len(changed)} of {len(now)} recipes changed")
    torch.set_num_threads(curves.THREADS)
    kept = curves.checked_in() if curves.FILE.is_file() else {}
    for precision in curves.PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            run = curves.train(precision, Path(folder))
        old = kept.get(precision, {"losses": {}, "weights": {}})
        same = old["losses"].keys() == run.losses.keys() and all(
            np.allclose(old["losses"][stage], run.losses[stage], rtol=0, atol=curves.TOLERANCE) for stage in run.losses
        )
        weights = {**(old["weights"] if same else {}), curves.machine(): run.weights}
        kept[precision] = {"losses": old["losses"] if same else run.losses, "weights": weights}
        print(f"{precision}: losses {'as before' if same else 'changed'}")
    _write(curves.FILE, kept)


if __name__ == "__main__":
    main()
