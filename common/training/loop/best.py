"""The best weights of a training so far, and its evaluations, in a folder that survives a killed run.

Usage: `best = Best(context.work / "watch")`; `best.keep(trainer, step)`; later `load_weights(model, best.path(step))`.

Which weights are best is decided elsewhere: by the reward monitor, or by the loss of validation rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config.json import as_written, read_json
from common.cost.disk import KEPT_BEST
from common.store.artifacts import flush, write_json
from common.training.distributed import parallel, ranks
from common.training.loop.progress import checkpoints

Evaluation = dict[str, Any]
EVALUATIONS = "evaluations.json"


class Best:
    """Files of weights by step, and the evaluations of the training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, trainer: Any, step: int) -> None:
        """Save a trainer's weights. All processes take part."""
        self.folder.mkdir(parents=True, exist_ok=True)
        parallel.save_weights_of(trainer, self.path(step))
        if ranks.is_main_process():
            flush(self.path(step))
            self._forget(sorted(step for step, _ in checkpoints(Path(trainer.args.output_dir))))

    def _forget(self, resumable: Sequence[int]) -> None:
        """Remove the files that no resumed run can need: all but the last one before each trainer checkpoint."""
        files = {int(path.stem.partition("-")[2]): path for path in self.folder.glob("best-*.safetensors")}
        ends = (*resumable[1 - KEPT_BEST :], max(files))
        needed = {max((step for step in files if step <= end), default=0) for end in ends}
        for step in files.keys() - needed:
            files[step].unlink()

    def has(self, step: int) -> bool:
        return self.path(step).is_file()

    def path(self, step: int) -> Path:
        return self.folder / f"best-{step}.safetensors"

    def write(self, evaluations: Sequence[Mapping[str, Any]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / EVALUATIONS, list(evaluations))

    def read(self, step: int) -> list[Evaluation]:
        """Return the evaluations of a killed run up to the step from which it resumes; all processes get the same."""
        path = self.folder / EVALUATIONS
        with as_written(path):
            found = read_json(path, strict=False) if path.is_file() else []
            before = [evaluation for evaluation in found if evaluation["step"] <= step]
        return list(ranks.broadcast(before))
