"""One stage at a time on a GPU: a lock for each, held while a stage runs, whatever store its run works in.

Usage: `with lock_gpus(config.run, "cpt", console): stage.run(context)`.

It holds off other runs of this program, not other programs; of those it says how much memory they have left.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.config.schema import RunSettings
from common.console import Console
from common.errors import StoreError
from common.models.device import device_of
from common.store import cache
from common.store.locks import Holder, hold
from common.training.distributed import ranks

SHARED = Path("/tmp")  # where all users of a machine meet, whatever folder a job names for its own temporary files
CROWDED = 0.9  # share of a GPU's memory below which a run says what is free


@contextlib.contextmanager
def lock_gpus(run: RunSettings, stage: str, console: Console) -> Iterator[None]:
    """Hold the GPUs that this machine's processes of a stage train on. On a CPU, or without `run.gpu_lock`, none is."""
    if device_of(run) == "cpu":
        yield
        return
    import torch

    numbers = to_hold(torch.cuda.device_count())
    names = [str(torch.cuda.get_device_properties(i).uuid) for i in numbers] if run.gpu_lock else []
    with held(names, run, stage, console):
        free, total = torch.cuda.mem_get_info() if numbers else (0, 0)
        if free + torch.cuda.memory_reserved() < CROWDED * total:
            room = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are free"
            console.line(f"  {stage}: another program is on this GPU, {room}", always=True)
        yield


def to_hold(visible: int) -> range:
    """Return the numbers of the GPUs that this process holds, of those that it sees.

    A machine's first process holds for all, so that no two runs wait for each other; where a scheduler shows each of
    them its own GPU alone, each holds that.
    """
    if visible < ranks.local_size():
        return range(visible)
    return range(0 if int(os.environ.get("LOCAL_RANK", "0")) else ranks.local_size())


@contextlib.contextmanager
def held(names: Sequence[str], run: RunSettings, stage: str, console: Console) -> Iterator[None]:
    """Hold the locks of some GPUs, in the same order in every run.

    Where the folder of all users cannot be used, the lock is among this user's runs. Raises StoreError where one is
    held and `run.wait` is false, or where no lock can be written.
    """

    def busy(holder: Holder) -> StoreError:
        return StoreError(
            f"Stage {stage}: {holder.who} trains on this GPU. Leave out run.wait=false to wait for it, choose "
            f"another with CUDA_VISIBLE_DEVICES, or share it with run.gpu_lock=false. {holder.silence}".strip()
        )

    def waiting(holder: Holder) -> None:
        console.line(f"  {stage}: {holder.who} trains on this GPU; waiting (Ctrl-C to stop). {holder.silence}".rstrip())

    with contextlib.ExitStack() as locks:
        for name in sorted(names):
            for folder in (lock_folder(), cache.folder() / "locks"):
                shared = folder == lock_folder()
                lock = folder / f"gpu-{name}.lock"
                try:
                    locks.enter_context(hold(lock, wait=run.wait, busy=busy, on_wait=waiting, among_users=shared))
                    break
                except StoreError:
                    raise
                except OSError as error:  # whoever is another user must not keep this one out
                    reason = error.strerror or error
                    if not shared:
                        raise StoreError(f"Stage {stage} cannot lock its GPU with {lock}: {reason}.") from error
                    console.line(
                        f"  {stage}: {folder} cannot be used for locks ({reason}), so this run waits for others of "
                        "this user alone; its owner should remove it", always=True,
                    )  # fmt: skip
        yield


def lock_folder() -> Path:
    """Return the folder of the locks: one for all users of a machine, where it has such a place."""
    usable = SHARED.is_dir() and os.access(SHARED, os.W_OK | os.X_OK)
    return (SHARED if usable else Path(tempfile.gettempdir())) / "domain-recipes"
