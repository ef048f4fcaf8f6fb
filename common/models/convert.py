"""Convert a checkpoint of pickled weights into a folder of safetensors, in a process of its own.

Usage: `python -m common.models.convert <folder> <new folder>`.

A pickle can hold code, so a run never loads one. Here torch reads tensors alone (`weights_only`) and runs nothing else.
"""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

from common.config.json import read_json
from common.errors import DataError, first_line

PICKLES = ("*.bin", "*.pt", "*.pth")
# What a checkpoint holds beside its weights; its README.md states the licence.
BESIDE = ("*.json", "*.jinja", "*.model", "*.txt", "README.md")
NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.bin", "scheduler.pt", "rng_state.pth")


def pickles_of(folder: Path) -> list[Path]:
    """Return the pickled weights in a folder: the shards that its index names, else all that may be weights.

    Raises DataError for an index that cannot be read, and for a shard that is missing.
    """
    indexes = sorted(folder.glob("*.bin.index.json"))
    if not indexes:
        return sorted(path for form in PICKLES for path in folder.glob(form) if path.name not in NOT_WEIGHTS)
    try:
        names = sorted(set(read_json(indexes[0])["weight_map"].values()))
    except (KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{indexes[0]} is no index of shards. Copy or download it again.") from error
    missing = [name for name in map(str, names) if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise DataError(f"{indexes[0]} names {missing[0]}, which is not in {folder}. Copy or download it again.")
    return [folder / name for name in names]


def convert(folder: Path, out: Path) -> None:
    """Write a folder's weights into `out` as safetensors, and what stands beside them.

    Raises DataError for a folder without pickled weights, one that cannot be read, and an `out` that is not empty.
    """
    from huggingface_hub import save_torch_state_dict

    if not (files := pickles_of(folder)):
        raise DataError(f"{folder} holds no pickled weights ({', '.join(PICKLES)}). Give the folder that holds them.")
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty. Give a new folder.")
    weights: dict[str, Any] = {}
    for path in files:
        weights |= _tensors(path)
    out.mkdir(parents=True, exist_ok=True)
    for path in (found for form in BESIDE for found in folder.glob(form)):
        if not path.name.endswith(".index.json"):
            shutil.copyfile(path, out / path.name)
    save_torch_state_dict(weights, out)


def _tensors(path: Path) -> dict[str, Any]:
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise DataError(f"{path} holds more than tensors, or is damaged: {first_line(error)}") from error
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise DataError(f"{path} is no table of tensors by name, so it holds no weights of a checkpoint.")
    return found


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m common.models.convert <folder> <new folder>", file=sys.stderr)
        return 2
    try:
        convert(*map(Path, arguments))
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Converted. Start from it with model.path={arguments[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
