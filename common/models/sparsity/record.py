"""Which matrices of a stage's result are 2:4 sparse, as data beside its weights, checked by reading the saved file.

Usage: `facts = check_sparse(out, names)`; `write_sparsity(out, facts)`; later stages `keep(parent, out)`.

The file is ours and no part of the model: another program loads the folder without it.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.config.json import as_written, read_json
from common.errors import ContractError
from common.models.finite import weights_in
from common.models.shards import read_header, shards_of
from common.models.sparsity.masks import is_sparse
from common.store.artifacts import write_json

FILE = "sparsity.json"


@dataclass(frozen=True)
class Sparsity:
    """What of a model is sparse."""

    stage: str  # that cut it
    matrices: tuple[str, ...]  # names of their tensors
    zeros: int  # in these
    weights: int  # of these
    parameters: int  # of the whole model, as its file holds it

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "matrices": list(self.matrices)}


def check_sparse(folder: Path, matrices: Collection[str], stage: str) -> Sparsity:
    """Check that the named tensors of a saved model are 2:4 sparse. Raises ContractError for the first that is not."""
    zeros = weights = parameters = 0
    left = set(matrices)
    for shard in shards_of(folder):
        parameters += sum(math.prod(entry["shape"]) for entry in read_header(shard).values())
        for name, tensor in weights_in(shard):
            if name not in left:
                continue
            left.remove(name)
            if not is_sparse(tensor):
                raise ContractError(
                    f"{name} of the saved model has more than 2 weights that are not zero in 4 neighbours of a row, so "
                    f"it is not 2:4 sparse, as {stage} promises. Nothing is committed. Leave out what changes weights "
                    "after each step, as callbacks and other methods do."
                )
            zeros += int((tensor == 0).sum())
            weights += tensor.numel()
    if left:
        raise ContractError(
            f"{len(left)} of the matrices that {stage} cut are not in the saved model, such as {min(left)}. Nothing is "
            "committed. Report this as a bug."
        )
    return Sparsity(stage, tuple(sorted(matrices)), zeros, weights, parameters)


def write_sparsity(folder: Path, sparsity: Sparsity) -> None:
    write_json(folder / FILE, sparsity.as_dict())


def sparsity_of(folder: Path) -> Sparsity | None:
    """Return what a stage result says of its zeros."""
    path = folder / FILE
    if not path.is_file():
        return None
    with as_written(path):
        found = read_json(path, strict=False)
        return Sparsity(**{**found, "matrices": tuple(str(name) for name in found["matrices"])})


def keep(parent: Path, folder: Path) -> Sparsity | None:
    """Check that a result has the zeros of its parent still, where that has some, and say so beside it."""
    before = sparsity_of(parent)
    if before is None:
        return None
    now = check_sparse(folder, before.matrices, before.stage)
    write_sparsity(folder, now)
    return now
