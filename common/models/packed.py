"""Weights that were published in packed numbers, of 4 or 8 bits with scales beside them, and are read as plain ones.

Usage: `config = unpacked(config)`; `weights = weights_in("model.layers.0.mlp.down_proj_blocks", [4, 64, 2, 16])`.

Models whose only published weights are packed can thus be trained: GPT-OSS in MXFP4, Ministral 3 and DeepSeek-V3 in
FP8. transformers 5.23 does the unpacking, but on a GPU only where it is asked to.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import DataError
from common.models.settings_files import CONFIG, NESTED, read_config
from common.models.shards import read_header, shards_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

KINDS = ("fp8", "mxfp4")
EIGHT_BITS = ("F8_E4M3", "F8_E5M2")  # types of weights that stand for nothing without their scales
SCALE = "_scale_inv"  # the only ending by which transformers finds the scale of such a weight
TWO_IN_ONE = "_blocks"  # how names of tensors end whose bytes are two numbers each
SCALES = ("_scales", SCALE, "_scale")
LEFT_OVER = ("weight_scale", SCALE, "weight_scale_2")  # ends of names that only scales of packed weights have
BLOCKS = (128, 128)  # rows and columns that share a scale, where config.json says nothing of them
OF_MX = (1, 32)  # rows and columns that share a scale in MX formats, whatever config.json says of others


def packed_as(config: Mapping[str, Any]) -> str | None:
    """Return how the weights of a config.json, or of a language model within it, are packed; None for plain ones."""
    packing = _packing(config)
    return None if packing is None else str(packing.get("quant_method"))


def _packing(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    places = (config, *(config.get(key) for key in NESTED))
    found = (place.get("quantization_config") for place in places if isinstance(place, Mapping))
    return next((packing for packing in found if isinstance(packing, Mapping)), None)


def require_unpackable(folder: Path) -> None:
    """Check that the weights of a checkpoint are plain, or packed so that they can be unpacked. Raises DataError."""
    if not folder.is_dir():
        return
    kind = packed_as(read_config(folder))
    if kind is not None and kind not in KINDS:
        raise DataError(_still_packed(folder, kind))
    tensors = {name: entry for shard in shards_of(folder) for name, entry in read_header(shard).items()}
    eight = [name for name, entry in tensors.items() if entry["dtype"] in EIGHT_BITS]
    if bare := [name for name in eight if kind != "fp8" or name + SCALE not in tensors]:
        wrong = (
            f"there is no tensor {bare[0]}{SCALE}" if kind == "fp8" else f"{CONFIG} has no quantization_config of fp8"
        )
        raise DataError(
            f"{folder}: {bare[0]} is stored in 8 bits ({tensors[bare[0]]['dtype']}), and {wrong}, without which "
            f"transformers {version('transformers')} reads other numbers. Give the checkpoint it was quantised from."
        )
    if kind == "fp8" and (cut := _cut_by_blocks(folder, {name: entry["shape"] for name, entry in tensors.items()})):
        raise DataError(
            f"{folder}: {cut} is no multiple of the blocks that share a scale (weight_block_size in {CONFIG}), which "
            "transformers 5.23 unpacks to other numbers. Give the checkpoint that it was quantised from."
        )


def require_unpacked(model: PreTrainedModel, folder: Path) -> None:
    """Check that a model is of plain numbers once it is loaded. Raises DataError."""
    if getattr(model, "is_quantized", False):
        raise DataError(_still_packed(folder, type(model).__name__))


def _still_packed(folder: Path, kind: str) -> str:
    return (
        f"{folder / CONFIG}: the weights are quantised ({kind}), which cannot be trained or saved as numbers; expected "
        f"plain ones, or packed as {' or '.join(KINDS)}. Give the checkpoint that they were quantised from. "
        "sft.peft=qlora quantises by itself."
    )


def _cut_by_blocks(folder: Path, shapes: Mapping[str, Sequence[int]]) -> str:
    """Return the name of a tensor whose last block is smaller than the others; an empty text where there is none.

    transformers takes a block's size from how many there are, so that it would be wrong for all of them.
    """
    stated = (_packing(read_config(folder)) or {}).get("weight_block_size", BLOCKS) or (None, None)
    for name, scales in shapes.items():
        weight = name.removesuffix(SCALE)
        if weight == name or len(scales) < 2 or weight not in shapes:
            continue
        if len(shapes[weight]) < 2:
            return weight
        for size, blocks, usual, mx in zip(shapes[weight][-2:], scales[-2:], stated, OF_MX, strict=True):
            whole = blocks == 1 and (usual is None or size <= usual)
            if not whole and (not blocks or size % blocks or size // blocks not in (usual, mx)):
                return weight
    return ""


def unpacked(config: PreTrainedConfig) -> PreTrainedConfig | None:
    """Return the configuration by which transformers unpacks the weights; None where they are not packed so."""
    if packed_as(vars(config)) not in KINDS:
        return None
    changed = copy.deepcopy(config)
    changed.quantization_config = {**config.quantization_config, "dequantize": True}
    return changed


def weights_in(name: str, shape: Sequence[int]) -> int:
    """Return how many weights of a model a stored tensor holds."""
    return 0 if name.endswith(SCALES) else math.prod(shape) * (2 if name.endswith(TWO_IN_ONE) else 1)


def note_packed(folder: Path) -> list[str]:
    """Return a line about a checkpoint whose weights were unpacked; nothing for others."""
    kind = packed_as(read_config(folder)) if folder.is_dir() else None
    return [f"its weights were packed ({kind}) and are plain numbers from here on"] if kind else []
