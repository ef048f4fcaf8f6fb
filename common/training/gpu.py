"""One stage at a time on a GPU: a lock for each, held while a stage runs, whatever store its run works in.

Usage: `with claimed(config.run, "cpt", console): stage.run(context)`.

It holds off other runs of this program, not other programs; of those it says how much memory they have left.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.config import RunSettings
from common.console import Console
from common.errors import StoreError
from common.locks import Holder, hold
from common.training import ranks
from common.training.device import device_of

CROWDED = 0.9  # share of a GPU's memory below which what is free is worth a word


@contextlib.contextmanager
def claimed(run: RunSettings, stage: str, console: Console) -> Iterator[None]:
    """Hold the GPUs that this machine's processes of a stage train on; on a CPU nothing is held."""
    if device_of(run) == "cpu" or int(os.environ.get("LOCAL_RANK", "0")):
        yield  # the first process of a machine holds for all, so that no two runs wait for each other
        return
    import torch

    number = ranks.local_size()
    with held([str(torch.cuda.get_device_properties(i).uuid) for i in range(number)], run, stage, console):
        free, total = torch.cuda.mem_get_info()
        if free < CROWDED * total:
            console.line(
                f"  {stage}: another program is on this GPU, {free / 2**30:.1f} of {total / 2**30:.1f} GiB are free",
                always=True,
            )
        yield


@contextlib.contextmanager
def held(names: Sequence[str], run: RunSettings, stage: str, console: Console) -> Iterator[None]:
    """Hold the locks of some GPUs, in the same order in every run. Raises StoreError where `run.wait` is false."""

    def busy(holder: Holder) -> StoreError:
        return StoreError(
            f"Stage {stage}: {holder.who} trains on this GPU. Leave out run.wait=false to wait for it, or choose "
            f"another with CUDA_VISIBLE_DEVICES. {holder.silence}".strip()
        )

    def waiting(holder: Holder) -> None:
        console.line(f"  {stage}: {holder.who} trains on this GPU; waiting (Ctrl-C to stop). {holder.silence}".rstrip())

    folder = Path(tempfile.gettempdir()) / "domain-recipes"
    with contextlib.ExitStack() as locks:
        for name in sorted(names):
            locks.enter_context(hold(folder / f"gpu-{name}.lock", wait=run.wait, busy=busy, on_wait=waiting))
        yield
