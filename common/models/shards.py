"""The safetensors files of a checkpoint: which of them are read, and what their headers say, checked to the last byte.

Usage: `for shard in shards_of(folder): header = read_header(shard)`; `check_shards(folder)`.

No weight is read here. The rules are those of the format: tensors fill the file from the header's end to the last byte,
without overlap and without a gap.
"""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Any, TypeGuard

from common.config.json import LARGEST, parse_json, read_json
from common.errors import DataError
from common.models.boundary import COPY_AGAIN
from common.system.files import open_regular

INDEX = "model.safetensors.index.json"
BITS = {  # of a number, by its type in a header
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64,
    "U64": 64,
}  # fmt: skip
Header = dict[str, Any]  # name -> {dtype, shape, data_offsets}


def check_shards(folder: Path) -> list[Path]:
    """Return the files of weights, all there and whole; none where the folder has none. Raises DataError."""
    named: dict[str, list[str]] = {}  # file -> its tensors
    for tensor, file in _index(folder).items():
        named.setdefault(file, []).append(tensor)
    shards = shards_of(folder)
    if missing := sorted(named.keys() - {shard.name for shard in shards}):
        raise DataError(f"{folder} lacks {missing[0]}, which its index names. {COPY_AGAIN}")
    for shard in shards:
        names, header = named.get(shard.name), read_header(shard)
        if names and header.keys().isdisjoint(names):
            raise DataError(f"{shard} has no tensor that {INDEX} puts there, as {names[0][:60]}. {COPY_AGAIN}")
    return shards


def shards_of(folder: Path) -> list[Path]:
    """Return the files of weights that are read: those of the index, where there is one, else all.

    Some folders hold the same weights a second time under other names, such as consolidated.safetensors.
    """
    named = set(_index(folder).values())
    return sorted(shard for shard in folder.glob("*.safetensors") if not named or shard.name in named)


def _index(folder: Path) -> dict[str, str]:
    """Return tensor name -> name of its file, as a folder's index says; nothing without one. Raises DataError."""
    index = folder / INDEX
    if not (index.exists() or index.is_symlink()):
        return {}
    expected = f"expected `weight_map` to name a file beside it for each tensor. {COPY_AGAIN}"
    found = read_json(index)
    files = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(files, dict) or not files or not isinstance(found.get("metadata", {}), dict):
        raise DataError(f"{index} is no index of weights: {expected}")
    for tensor, name in files.items():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise DataError(f"{index} puts the tensor {tensor[:60]} in {str(name)[:60]!r}; {expected}")
    return files


def read_header(shard: Path) -> Header:
    """Return tensor name -> {dtype, shape, data_offsets} of a safetensors file. Raises DataError if it is broken."""
    try:
        with open_regular(shard) as stream:
            size = os.fstat(stream.fileno()).st_size
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= min(size - 8, LARGEST):
                raise ValueError(f"its header would have {length:,} bytes, the file has {size:,}")
            header: Header = parse_json(stream.read(length).decode("utf-8"))
        end = _check_header(header)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{shard} cannot be read ({error.strerror}). {COPY_AGAIN}") from error
    except ValueError as error:
        raise DataError(f"{shard} is no whole safetensors file: {error}. {COPY_AGAIN}") from error
    if size != (expected := 8 + length + end):
        wrong = "is cut short" if size < expected else "goes on behind its last tensor"
        raise DataError(f"{shard} {wrong}: {size:,} bytes, its header says {expected:,}. {COPY_AGAIN}")
    return header


def _check_header(header: Any) -> int:
    """Check every entry of a header and take its metadata out. Returns where the last tensor ends. Raises ValueError.

    Offsets count from the header's end.
    """
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its __metadata__ is no object of texts")
    spans = sorted((*_span(name, entry), name) for name, entry in header.items())
    for (_, end, before), (begin, _, name) in itertools.pairwise([(0, 0, ""), *spans]):
        if begin != end:
            what = "overlaps" if begin < end else "leaves a gap behind"
            raise ValueError(f"the tensor {name[:60]} {what} {before[:60] or 'the header'}")
    return spans[-1][1] if spans else 0


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Return where a tensor begins and ends. Raises ValueError where type, shape and place do not fit each other."""
    if not isinstance(entry, dict) or not isinstance(kind := entry.get("dtype"), str) or kind not in BITS:
        raise ValueError(f"the tensor {name[:60]} is of no known type")
    shape, place = entry.get("shape"), entry.get("data_offsets")
    if not _are_sizes(shape) or not _are_sizes(place) or len(place) != 2:
        raise ValueError(f"the tensor {name[:60]} has a shape or a place that is no list of whole numbers")
    begin, end = place
    if math.prod(shape) * BITS[kind] != 8 * (end - begin):
        raise ValueError(f"the tensor {name[:60]} of shape {str(shape)[:40]} in {kind} does not fill its place")
    return begin, end


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)
