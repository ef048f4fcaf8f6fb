"""The best weights that a training had so far, in a folder that the same run finds again after it was killed.

Usage: `best = Best(context.work / "watch")`; `best.keep(trainer, step)`; later `load_weights(model, best.path(step))`.

Which weights are best is for others to say: the watch of a reward, or the loss of rows that never train.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.cost.disk import KEPT_BEST
from common.store.artifacts import write_json
from common.training.distributed import parallel, ranks

Look = dict[str, Any]
LOOKS = "looks.json"


class Best:
    """Files of weights by step, and what was seen at each look, beside each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, trainer: Any, step: int) -> None:
        """Write down a trainer's weights; all processes take part."""
        self.folder.mkdir(parents=True, exist_ok=True)
        parallel.save_weights_of(trainer, self.path(step))
        if ranks.is_main_process():
            self._forget(sorted(int(p.name.split("-")[1]) for p in Path(trainer.args.output_dir).glob("checkpoint-*")))

    def _forget(self, checkpoints: Sequence[int]) -> None:
        """Remove the files that no run which goes on from a checkpoint can need: all but the last one before each."""
        files = {_step_of(path): path for path in self.folder.glob("best-*.safetensors")}
        ends = (*checkpoints[1 - KEPT_BEST :], max(files))
        needed = {max((step for step in files if step <= end), default=0) for end in ends}
        for step in files.keys() - needed:
            files[step].unlink()

    def has(self, step: int) -> bool:
        return self.path(step).is_file()

    def path(self, step: int) -> Path:
        return self.folder / f"best-{step}.safetensors"

    def write(self, looks: Sequence[Mapping[str, Any]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / LOOKS, list(looks))

    def read(self, step: int) -> list[Look]:
        """Return the looks of a run that was killed, up to the step from which it goes on."""
        path = self.folder / LOOKS
        if not path.is_file():
            return []
        return [look for look in json.loads(path.read_text(encoding="utf-8")) if look["step"] <= step]


def _step_of(path: Path) -> int:
    return int(path.stem.partition("-")[2])
